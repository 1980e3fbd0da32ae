"""Every family of the zoo, one width each: exported, and its steps one by one are the network as it ships."""

from __future__ import annotations

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from tests.conftest import require
from tests.families import FAMILIES
from tests.further import further

CASES = [(name, precision) for name in FAMILIES for precision in ("fp32", "hybrid")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*random weights")
@pytest.mark.parametrize("case", further(CASES, usual=[("ghostnetv2_100", "fp32"), ("g_ghost_regnetx_002", "hybrid")]))
def test_the_family_is_exported_and_computes_what_pytorch_does(case, tmp_path):
    require("native")
    name, precision = case
    network = gd.create_model(name, num_classes=10).eval()

    made = gd.export(network, target="native", name=name, out=tmp_path, preprocess={"size": 64}, precision=precision)

    assert made.manifest.parity.verdict == "passed"
    assert_looked_into(made.path)


def assert_looked_into(path):
    """Every tensor of a network, computed step by step; and from any of them on, the same outputs."""
    from ghostdeploy.runtimes.native.probe import open_probe

    bundle = open_bundle(path)
    probe, images = open_probe(bundle), {name: array[:2] for name, array in bundle.golden()[0].items()}
    inside = [name for step in probe.steps for name in step.writes]
    found = probe.run(images, inside)  # refused where the outputs are not the network's, to the last bit
    for tensor in [step.reads[0] for step in probe.layers if step.reads[0] not in probe.inputs][:: len(inside) // 8]:
        again = probe.run(images | {tensor: found[tensor]}, list(probe.outputs.values()))
        for name, array in again.items():
            np.testing.assert_allclose(array, found[name], rtol=0, atol=1e-5 * np.abs(array).max())

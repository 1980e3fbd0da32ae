"""Random small networks: compiled C against PyTorch in float64."""

from __future__ import annotations

import os
import shlex

import pytest

from tests.conftest import require


@pytest.fixture(autouse=True, scope="module")
def torch_here():
    require("native")
    require("executorch")  # its reader of ONNX graphs is what PyTorch computes here


@pytest.mark.parametrize(("seeds", "level"), [(range(260), 0), (range(260, 320), -1)], ids=["best", "plain"])
def test_random_networks_are_those_of_pytorch_in_float64(seeds, level, tmp_path):
    """Alone and by teams of two and three, whose bits are the same; by the best and by the least instructions."""
    from tests.native_batches import Kernels, levels, run

    name = levels()[level]
    compiler = shlex.split(os.environ["CC"])  # it remembers, see `tests.compiling`
    said = run(seeds, [Kernels(compiler, "plain", name, tmp_path / name)], tmp_path)

    assert not said, said


def test_every_operator_is_among_them():
    from ghostdeploy.exporters.native.operators import OPERATORS
    from tests.integer_networks import quantized_model
    from tests.native_any import any_model

    found = {node.op_type for seed in range(320) for node in any_model(seed).graph.node}
    found |= {node.op_type for seed in range(20) for node in quantized_model(seed).graph.node}

    assert found == set(OPERATORS) - {"Identity"}  # its graphs have none: it is taken out before

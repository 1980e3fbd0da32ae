"""Every family of the zoo, one width each: converted whole to builtin operators, without moving dimensions."""

from __future__ import annotations

import pytest

import ghostdeploy as gd
from ghostdeploy.exporters.tflite import file as tf
from tests.families import FAMILIES
from tests.further import further

CUSTOM = 32  # BuiltinOperator of the schema


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*random weights")
@pytest.mark.parametrize("name", further(FAMILIES, usual=("ghostnetv2_100", "g_ghost_regnetx_002")))
def test_the_family_is_exported_and_computes_what_pytorch_does(name, tmp_path):
    network = gd.create_model(name, num_classes=10).eval()

    bundle = gd.export(network, target="tflite", name=name, out=tmp_path, preprocess={"size": 64})

    assert bundle.manifest.parity.verdict == "passed"
    assert bundle.manifest.inputs[0].shape == (1, 64, 64, 3)
    model = tf.read(bundle.payload.read_bytes())
    assert [code for code in model.operatorCodes if code.builtinCode == CUSTOM or code.customCode] == []
    assert "TRANSPOSE" not in {kind for kind, _ in tf.operators(model)}

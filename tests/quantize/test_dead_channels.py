"""Channels that never fire: every target and precision takes them, and the constants behind them survive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.exporters.tflite.quantize import limits, writer
from ghostdeploy.exporters.tflite.quantize.graph import TFLiteGraph
from ghostdeploy.exporters.tflite.quantize.runner import TFLiteRunner
from tests import tiny_tflite
from tests.bundles import for_target
from tests.dead_channels import DEAD, colourful, dead_network

EVERY = {
    "int8": ("onnx", "openvino", "tensorrt", "tflite"),
    "fp16": ("openvino", "tensorrt", "tflite"),
    "hybrid": ("onnx", "openvino", "tflite"),
}

slow = pytest.mark.slow


def test_its_channels_are_dead_and_what_is_behind_them_counts():
    network = dead_network()
    with torch.no_grad():
        half = network[1].primary(network[0](torch.randn(4, 3, 16, 16)))
        behind = network[1].cheap(half)

    assert not half[:, DEAD].any()
    assert (half != 0).any(3).any(2).any(0).sum() == half.shape[1] - len(DEAD)
    assert torch.allclose(behind[:, DEAD], torch.tensor(0.7))


@slow
@pytest.mark.parametrize("precision", EVERY)
def test_every_target_passes_with_dead_channels(precision, tmp_path):
    config = ExportConfig(
        targets=EVERY[precision],
        precision=precision,
        out=tmp_path,
        calibration=colourful(),
        preprocess={"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"},
    )
    bundles = run_export(resolve_model(dead_network(), config), config, name="dead").bundles

    verdicts = {bundle.manifest.target: bundle.manifest.verdict for bundle in bundles}
    assert verdicts.keys() == set(EVERY[precision])
    assert "failed" not in verdicts.values()  # so few images decide no gate: unverified is right
    for bundle in bundles:
        assert next(p.sites for p in bundle.manifest.passes if p.name == "BalanceChannels") > 0
        if precision == "int8":
            assert bundle.manifest.parity.sqnr_db > 20, bundle.path


@pytest.fixture
def tiny():
    return for_target("tflite")


@pytest.fixture
def quantized(tiny, monkeypatch):
    """The tiny network in INT8 with one depthwise channel a million times too large: as written, and capped."""
    model = tf.read(tiny_tflite.floating(tiny))
    [layer] = [operator for kind, operator in tf.layers(model) if kind == "DEPTHWISE_CONV_2D"]
    weights = tf.constant(model, layer.inputs[1]).copy()
    weights[..., 3] *= 1e6
    tf.set_constant(model, layer, 1, weights)
    data = tf.pack(model)
    names = TFLiteGraph(tf.read(data)).activations()
    ranges = {
        name: (min(0.0, float(values.min())), max(0.0, float(values.max())))
        for name, values in tiny_tflite.run(tiny_tflite.floating(tiny), tiny.example(64, seed=3), names).items()
    }
    capped = writer.write(data, ranges, (), integer_io=False)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "cap_weight_scales", lambda model: 0)
        plain = writer.write(data, ranges, (), integer_io=False)
    return tf.pack(plain), tf.pack(capped)


def test_a_ratio_of_scales_beyond_xnnpacks_is_capped_and_changes_no_result(quantized, tiny):
    plain, capped = quantized
    batch = tiny.example(16, seed=5)["input"]

    with pytest.raises(RuntimeError, match="failed to prepare"):
        TFLiteRunner(plain, delegate=True)
    without, with_cap = (TFLiteRunner(data, delegate=False)(batch)[0] for data in (plain, capped))
    assert np.array_equal(without, with_cap)
    assert np.isfinite(TFLiteRunner(capped, delegate=True)(batch)[0]).all()


def test_only_the_channels_beyond_the_limit_are_capped(quantized):
    plain, capped = (tf.read(data) for data in quantized)

    assert limits.cap_weight_scales(capped) == 0
    changed = 0
    for (_, one), (_, other) in zip(tf.layers(plain), tf.layers(capped), strict=True):
        before, after = (
            np.asarray(tf.tensor(m, op.inputs[1]).quantization.scale) for m, op in ((plain, one), (capped, other))
        )
        changed += int((before != after).sum())
        assert (after <= before).all()
    assert changed == 1


def test_a_hard_swish_whose_output_is_as_good_as_zero_stays_float(tiny):
    model = tf.read(tiny_tflite.floating(tiny))
    [pool] = [operator for kind, operator in tf.operators(model) if kind == "MEAN"]
    code = model.operatorCodes[pool.opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.HARD_SWISH
    given, made = tf.name_of(model, pool.inputs[0]), tf.name_of(model, pool.outputs[0])

    assert list(limits.saturated_swishes(model, {given: (-60.0, -3.0), made: (0.0, 0.0)})) == [made]
    assert list(limits.saturated_swishes(model, {given: (-6.0, 5.0), made: (-0.4, 5.0)})) == []


def test_a_hard_swish_network_keeps_its_weights_where_they_are():
    """What a hard swish looks at cannot be rescaled: the cap and the range check are for those."""
    from ghostdeploy.deploy.fold.fold import fold

    _, certificate = fold(dead_network(act=nn.Hardswish), torch.randn(1, 3, 16, 16))

    assert next(record.sites for record in certificate.passes if record.name == "BalanceChannels") == 0

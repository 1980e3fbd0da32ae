"""OpenVINO on Arm: INT8 bundles are computed in float there, with the values that they were proven with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ghostdeploy as gd
from ghostdeploy.runtimes.openvino import runtime
from tests.bundles import Tiny
from tests.emulated import require_emulator, run_python

ROOT = Path(__file__).parents[2]
SIGNED = """
import json
import numpy, openvino
from openvino import opset13 as o

def quantize(value, low, high):
    ends = [o.constant(numpy.float32(end)) for end in (low, high)]
    return o.fake_quantize(value, *ends, *ends, 256)

image = o.parameter([1, 16, 8, 8], numpy.float32, name="image")
weights = (numpy.arange(8 * 16) % 127 - 63).astype(numpy.int8).reshape(8, 16, 1, 1)
scaled = o.multiply(o.convert(o.constant(weights), "f32"), o.constant(numpy.float32(0.01)))
layer = o.convolution(quantize(image, LOW, 1.55), scaled, [1, 1], [0, 0], [0, 0], [1, 1])
biased = o.add(layer, o.constant(numpy.linspace(-0.5, 0.5, 8, dtype=numpy.float32).reshape(1, 8, 1, 1)))
model = openvino.Model([quantize(o.relu(biased), 0.0, 2.0)], [image], "one")
try:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **SETTINGS})
    kinds = [op.get_rt_info()["primitiveType"].astype(str) for op in compiled.get_runtime_model().get_ops()]
    print(json.dumps([kind for kind in kinds if "acl" in kind or "ref_any" in kind]))
except RuntimeError as error:
    print(json.dumps(str(error).strip().splitlines()[-1]))
"""
"""One INT8 layer of activations from LOW to 1.55."""


def layer_kernels(core, low, **settings):
    program = f"LOW, SETTINGS = {low}, {settings!r}\n{SIGNED}"
    said = run_python(require_emulator(core), "-c", program)
    return json.loads(said.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("processor", "precision", "float_layers"),
    [("aarch64", "int8", True), ("aarch64", "fp16", False), ("x86-64", "int8", False)],
)
def test_integers_are_left_where_the_kernels_are_wrong(processor, precision, float_layers, tiny_bundle, monkeypatch):
    monkeypatch.setattr(runtime, "architecture", lambda: processor)

    with gd.load(tiny_bundle("openvino", precision), threads=1) as model:
        layers = "none" if precision != "int8" else "float" if float_layers else "integer"
        assert model.info()["int8_layers"] == layers
        assert model(Tiny().example(1)["input"]).shape == (1, 10)
        request = model._requests.get()
        model._requests.put(request)
        ran = request.get_compiled_model().get_runtime_model()
        integers = [op for op in ran.get_ops() if op.get_rt_info()["primitiveType"].astype(str).endswith("_I8")]
        assert bool(integers) == (layers == "integer")


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a76"])
def test_an_int8_bundle_is_proven_on_arm(core, tiny_bundle):
    folder = tiny_bundle("openvino", "int8")
    said = run_python(require_emulator(core), "-m", "ghostdeploy", "verify", str(folder), "--json", paths=[ROOT])

    (found,) = json.loads(said.stdout)
    assert (said.returncode, found["verdict"]) == (0, "passed"), said.stderr
    assert found["execution"]["sqnr_db"] > 45


@pytest.mark.slow
@pytest.mark.parametrize(
    ("core", "kernels"), [("cortex-a72", "object is not initialized"), ("cortex-a76", ["ref_any_f16"])]
)
def test_why_a_zero_point_has_no_integer_kernel_on_arm(core, kernels):
    """Fails when OpenVINO has learned it: then the runtime may compute in integers again."""
    assert layer_kernels(core, -1.0) == kernels
    assert layer_kernels(core, 0.0) == ["acl_I8"]
    assert "gemm_acl_f32" in layer_kernels(core, -1.0, LP_TRANSFORMS_MODE=False)

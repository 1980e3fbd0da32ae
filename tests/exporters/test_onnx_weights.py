"""INT8 weights where a layer waits for memory: chosen by arithmetic, written in standard operators, run as integers."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import helper, numpy_helper

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.convert.graph.precision import read_precision
from ghostdeploy.exporters.onnx.weights import compress, quantize_columns
from ghostdeploy.exporters.openvino.exporter import write_max_as_relu
from ghostdeploy.layer_costs import BALANCE, SMALLEST, waits_for_memory
from tests.exported import sample_bundle
from tests.further import further


def dense(*widths, kind="Gemm", between="Relu", batch=1, seed=0):
    """A chain of linear layers as ONNX, (batch, widths[0]) to (batch, widths[-1])."""
    rng = np.random.default_rng(seed)
    nodes, constants, last = [], [], "x"
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        weight = rng.normal(size=(outputs, inputs) if kind == "Gemm" else (inputs, outputs)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"layer{index}.weight"))
        constants.append(numpy_helper.from_array(rng.normal(size=outputs).astype(np.float32), f"layer{index}.bias"))
        if kind == "Gemm":
            names = [last, f"layer{index}.weight", f"layer{index}.bias"]
            nodes.append(helper.make_node("Gemm", names, [f"y{index}"], name=f"layer{index}", transB=1))
        else:
            nodes.append(
                helper.make_node("MatMul", [last, f"layer{index}.weight"], [f"m{index}"], name=f"layer{index}")
            )
            nodes.append(
                helper.make_node("Add", [f"m{index}", f"layer{index}.bias"], [f"y{index}"], name=f"add{index}")
            )
        last = f"y{index}"
        if between and index < len(widths) - 2:
            nodes.append(helper.make_node(between, [last], [f"a{index}"], name=f"act{index}"))
            last = f"a{index}"
    ends = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, width])]
        for name, width in (("x", widths[0]), (last, widths[-1]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "dense", *ends, constants), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.checker.check_model(model)
    return model


def outputs(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def kinds(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(("weights", "positions", "batch", "chosen"), [
    (SMALLEST, 1, 1, True), (SMALLEST - 1, 1, 1, False), (10**6, BALANCE - 1, 1, True), (10**6, BALANCE, 1, False),
    (10**6, 1, BALANCE, False), (10**6, 1, None, True), (10**6, 49, 1, False),
])  # fmt: skip
def test_arithmetic_intensity_decides(weights, positions, batch, chosen):
    assert waits_for_memory(weights, positions, batch) is chosen


def test_a_column_loses_at_most_half_a_step():
    weight = np.random.default_rng(1).normal(size=(64, 5)).astype(np.float32)
    weight[:, 2] = 0
    integers, scale = quantize_columns(weight)

    assert integers.dtype == np.int8
    assert np.abs(integers).max() == 127
    assert (np.abs(integers * scale - weight) <= scale / 2 * (1 + 1e-6)).all()
    assert scale[2] == 1
    assert not integers[:, 2].any()


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
@pytest.mark.parametrize("between", ["Relu", "Sigmoid", None])
def test_the_function_stays_and_onnx_runtime_multiplies_integers(kind, between, tmp_path):
    model = dense(96, 64, 128, kind=kind, between=between)
    x = np.random.default_rng(2).normal(size=(1, 96)).astype(np.float32)
    wanted = outputs(model, x)

    scheme = compress(model, 1)

    onnx.checker.check_model(model, full_check=True)
    assert "on 2 memory-bound layers" in scheme
    assert relative(outputs(model, x), wanted) < 0.02
    assert {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2} == {onnx.TensorProto.INT8}
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    achieved = read_precision(path)
    assert (achieved.int8_layers, achieved.float_layers) == (2, 0)
    assert "2 MatMulNBits on 8-bit data" in achieved.how


def test_the_weights_are_stored_once_in_a_quarter_of_the_bytes():
    model = dense(128, 256, 128)
    before = model.ByteSize()
    compress(model, 1)

    assert model.ByteSize() < 0.27 * before


def test_layers_too_small_or_shared_by_many_images_stay_float():
    small, busy = dense(16, 32, 8), dense(128, 256, batch=32)

    assert "on 0 memory-bound layers" in compress(small, 1)
    assert "on 0 memory-bound layers" in compress(busy, 32)
    assert kinds(small) == kinds(dense(16, 32, 8))
    assert kinds(busy) == ["Gemm"]


def test_other_forms_of_a_product_stay_as_they_are():
    model = dense(128, 64)
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.5))

    assert "on 0 memory-bound layers" in compress(model, 1)


def test_one_matrix_of_two_layers_is_stored_once():
    model = dense(96, 96, 96)
    model.graph.node[2].input[1] = "layer0.weight"
    x = np.random.default_rng(2).normal(size=(1, 96)).astype(np.float32)
    wanted = outputs(model, x)

    assert "on 2 memory-bound layers" in compress(model, 1)
    assert [tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8] == [
        "layer0.weight_int8"
    ]
    assert relative(outputs(model, x), wanted) < 0.02


def test_openvino_keeps_the_integers_and_gets_its_relu_back():
    model = dense(256, 256, 256)
    compress(model, 1)
    assert "Max" in kinds(model)
    core = openvino.Core()
    read = core.read_model(model.SerializeToString(), b"")

    write_max_as_relu(read)

    names = [op.get_type_name() for op in read.get_ops()]
    assert "Maximum" not in names
    assert names.count("Relu") == 1
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    layers = [f["runtimePrecision"].astype(str) for f in facts if f["layerType"].astype(str) == "FullyConnected"]
    assert layers == ["i8", "i8"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("name", further(["ghostnet_050", "g_ghost_regnetx_002"], usual=["ghostnet_050"]))
def test_the_trained_samples_pass_the_gate(name, target, tmp_path_factory):
    bundle = open_bundle(sample_bundle(tmp_path_factory, name, target, precision="hybrid"))
    manifest = bundle.manifest

    assert (manifest.verdict, manifest.parity.verdict, manifest.agreement.verdict) == ("passed",) * 3
    assert manifest.parity.cosine >= 0.999
    assert manifest.accuracy.drop <= 0.001
    assert "memory-bound layers" in manifest.quantization.scheme
    assert manifest.precision_achieved.int8_layers > 0
    assert {record.name for record in manifest.passes} >= {"SplitConcat", "VectorLayers"}

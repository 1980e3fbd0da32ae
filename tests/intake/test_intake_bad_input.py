"""ONNX files that cannot be deployed, options that have no effect on them: one sentence and the right exit code."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import ghostdeploy as gd
from tests.commands import assert_one_sentence, run
from tests.onnx_files import CALIB, behind, saved, small, weight


def quantized():
    model = small()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    pair = (("QuantizeLinear", ["inner", "scale"], ["q"]), ("DequantizeLinear", ["q", "scale"], ["map"]))
    return behind(model, *(helper.make_node(*one) for one in pair))


def foreign():
    model = behind(small(), helper.make_node("FusedConv", ["inner"], ["map"], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def branching():
    """Takes a branch by the values of the image."""
    branch = helper.make_graph(
        [helper.make_node("Relu", ["inner"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    model = small()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    steps = (
        helper.make_node("ReduceMax", ["inner"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["yes"]),
        helper.make_node("If", ["yes"], ["map"], name="choice", then_branch=branch, else_branch=branch),
    )
    return behind(model, *steps)


def looping():
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Relu", ["old"], ["new"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("old", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("new", TensorProto.FLOAT, None),
        ],
    )
    model = small()
    model.graph.initializer.append(numpy_helper.from_array(np.array(3), "count"))
    return behind(model, helper.make_node("Loop", ["count", "", "inner"], ["map"], body=body))


def foreign_inside():
    """Has an operator of one engine in a branch."""
    model = branching()
    for attribute in model.graph.node[-1].attribute:
        attribute.g.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def noisy(kind="RandomNormalLike"):
    """Adds random numbers."""
    steps = (helper.make_node(kind, ["inner"], ["noise"]), helper.make_node("Add", ["inner", "noise"], ["map"]))
    return behind(small(opset=17), *steps)


def training():
    """Drops values as training does."""
    model = small()
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.5), "ratio"), numpy_helper.from_array(np.array(True), "train")]
    )
    return behind(model, helper.make_node("Dropout", ["inner", "ratio", "train"], ["map"]))


def scalar():
    return behind(small(batch=1), helper.make_node("ReduceMean", ["inner"], ["map"], keepdims=0))


def contradicting():
    """Adds a bias of another length, which only ONNX Runtime notices."""
    model = small(opset=17)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(6, np.float32), "six"))
    next(node for node in model.graph.node if node.op_type == "Gemm").input.append("six")
    return model


def giving_back():
    model = small()
    model.graph.output.append(model.graph.input[0])
    return model


def not_a_number():
    model = small()
    array = numpy_helper.to_array(weight(model, "stem.conv.weight")).copy()
    array[3, 1] = np.nan
    weight(model, "stem.conv.weight").CopyFrom(numpy_helper.from_array(array, "stem.conv.weight"))
    return model


def huge_weight():
    model = small()
    weight(model, "head.weight").dims[:] = [1 << 40, 1 << 20]
    return model


def negative_weight():
    model = small()
    weight(model, "head.weight").dims[:] = [-5, -8]
    return model


def huge_value():
    model = small()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 8, 1 << 20, 1 << 20]), "sizes"))
    return behind(model, helper.make_node("Expand", ["m", "sizes"], ["map"]))


def channels_last():
    model = small()
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 32, 32, 3), strict=True):
        dim.dim_value = size
    return behind(model, helper.make_node("Relu", ["inner"], ["map"]))


def without_batch():
    """Sums over the batch."""
    model = small()
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    return behind(model, helper.make_node("ReduceSum", ["inner", "axis"], ["scores"], keepdims=0), output="scores")


def reserved():
    model = small()
    model.graph.output[1].name = "file"
    model.graph.node[-5].output[0] = "file"
    return model


def halved(*, storage=False):
    """Computes in float16 between two casts, or only stores its weights so."""
    model = small(opset=17)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    if storage:
        names = {tensor.name: f"{tensor.name}/half" for tensor in model.graph.initializer}
        for tensor in model.graph.initializer:
            tensor.name = names[tensor.name]
        casts = [helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT) for name, half in names.items()]
        nodes = [*casts, *model.graph.node]
    else:
        casts = [helper.make_node("Cast", ["pixels"], ["half"], to=TensorProto.FLOAT16)]
        for node in model.graph.node:
            node.input[:] = ["half" if name == "pixels" else name for name in node.input]
            node.output[:] = [f"{name}/half" if name in ("scores", "map") else name for name in node.output]
        ends = [helper.make_node("Cast", [f"{n}/half"], [n], to=TensorProto.FLOAT) for n in ("scores", "map")]
        nodes = [*casts, *model.graph.node, *ends]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


MODELS = {
    "quantized": (quantized, ("already quantized (1 QuantizeLinear, 1 DequantizeLinear)", "--int8")),
    "another domain": (foreign, ("FusedConv", "com.microsoft")),
    "branches": (branching, ("operator If at node choice", "values that depend on the image", "the branch that")),
    "loops": (looping, ("a loop (operator Loop)", "loops unrolled")),
    "another domain in a branch": (foreign_inside, ("Relu", "com.microsoft")),
    "random numbers": (noisy, ("different outputs each time it runs (RandomNormalLike)", "in eval mode")),
    "dropout in training": (training, ("different outputs each time it runs (Dropout in training mode)",)),
    "a scalar": (scalar, ("the model's output map is a scalar", "one row per image", "the batch as first dimension")),
    "a contradiction": (contradicting, ("ONNX Runtime cannot run the model: Gemm", "bias shape", "inconsistent")),
    "its input": (giving_back, ("returns its input 'pixels'", "leave that output out")),
    "NaN weight": (not_a_number, ("NaN", "stem.conv.weight")),
    "huge declared weight": (huge_weight, ("damaged", "head.weight", "1099511627776×1048576")),
    "negative size": (negative_weight, ("damaged", "-5×-8")),
    "huge tensor": (huge_value, ("32768 GiB", "Expand")),
    "huge image": (lambda: small(size=100_000), ("100000", "8192 pixels")),
    "channels last": (channels_last, ("1×32×32×3", "channels first")),
    "pixels": (lambda: small(dtype=TensorProto.UINT8), ("'pixels'", "uint8", "--input uint8-nhwc")),
    "half precision": (lambda: small(dtype=TensorProto.FLOAT16), ("float16", "float32", "--fp16")),
    "layers in half precision": (halved, ("already computes in float16 (3 Conv, 1 Gemm)", "float32", "--fp16")),
    "two inputs": (lambda: small(inputs=("left", "right")), ("2 inputs (left, right)",)),
    "no batch in an output": (without_batch, ("scores", "shape (5,)", "classes")),
    "a reserved name": (reserved, ("'file'",)),
    "unknown operator": (lambda: renamed("Relu", "Rleu"), ("Rleu",)),
    "dangling tensor": (lambda: rewired("l", "nowhere"), ("nowhere",)),
}


def renamed(old, new):
    model = small()
    for node in model.graph.node:
        node.op_type = new if node.op_type == old else node.op_type
    return model


def rewired(old, new):
    model = small()
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_cannot_be_deployed_is_refused(kind, capsys, tmp_path):
    make, words = MODELS[kind]
    path = saved(make(), tmp_path / "bad.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, *words)
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_are_only_stored_in_half_precision_are_taken(tmp_path):
    path = saved(halved(storage=True), tmp_path / "mine.onnx")

    bundle = gd.export(path, target="onnx", out=tmp_path)

    assert bundle.manifest.verdict == "passed"
    assert next(record for record in bundle.manifest.passes if record.name == "FoldBatchNorm").sites == 4
    assert "FLOAT16" not in bundle.manifest.precision_achieved.how


def test_chance_is_not_called_a_batch(capsys, tmp_path):
    path = saved(noisy(), tmp_path / "bad.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert "other images in its batch" not in answer.err


def test_a_quantized_model_is_refused_for_int8_too(capsys, tmp_path):
    path = saved(quantized(), tmp_path / "bad.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", "--int8", *CALIB, "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "already quantized", "give the float ONNX file")

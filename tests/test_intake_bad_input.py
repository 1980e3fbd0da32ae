"""ONNX files that cannot be deployed, options that say nothing to them: one sentence and the right exit code."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy import samples, targets
from ghostdeploy.deploy.inputs import read_labels
from ghostdeploy.errors import DataError
from tests.commands import assert_one_sentence, run
from tests.onnx_files import CALIB, saved, small


def weight(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def behind(model, *nodes, output="map"):
    """Puts nodes in front of an output; the last one writes it, and `inner` is what it was."""
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    model.graph.node.extend(nodes)
    return model


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


MODELS = {
    "quantized": (quantized, ("quantized already (1 QuantizeLinear, 1 DequantizeLinear)", "--int8")),
    "another domain": (foreign, ("FusedConv", "com.microsoft")),
    "branches": (branching, ("operator If at node choice", "values that depend on the image", "the branch that")),
    "loops": (looping, ("a loop (operator Loop)", "written out")),
    "another domain in a branch": (foreign_inside, ("Relu", "com.microsoft")),
    "random numbers": (noisy, ("other outputs each time it runs (RandomNormalLike)", "in eval mode")),
    "dropout in training": (training, ("other outputs each time it runs (Dropout in training mode)",)),
    "a scalar": (scalar, ("the model's output map is a scalar", "classes", "the batch as first dimension")),
    "a contradiction": (contradicting, ("ONNX Runtime cannot run the model: Gemm", "bias shape", "contradicts itself")),
    "its input": (giving_back, ("gives its input 'pixels' back", "leave that output out")),
    "NaN weight": (not_a_number, ("NaN", "stem.conv.weight")),
    "huge declared weight": (huge_weight, ("damaged", "head.weight", "1099511627776×1048576")),
    "negative size": (negative_weight, ("damaged", "-5×-8")),
    "huge tensor": (huge_value, ("32768 GiB", "Expand")),
    "huge image": (lambda: small(size=100_000), ("100000", "8192 pixels")),
    "no square": (lambda: oblong(), ("N×3×H×W with H = W",)),
    "channels last": (channels_last, ("1×32×32×3", "channels first")),
    "pixels": (lambda: small(dtype=TensorProto.UINT8), ("'pixels'", "uint8", "--input uint8-nhwc")),
    "half precision": (lambda: small(dtype=TensorProto.FLOAT16), ("float16", "float32")),
    "two inputs": (lambda: small(inputs=("left", "right")), ("2 inputs (left, right)",)),
    "no batch in an output": (without_batch, ("scores", "shape (5,)", "classes")),
    "a reserved name": (reserved, ("'file'",)),
    "unknown operator": (lambda: renamed("Relu", "Rleu"), ("Rleu",)),
    "dangling tensor": (lambda: rewired("l", "nowhere"), ("nowhere",)),
}


def oblong():
    model = small()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 48
    return model


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


def test_chance_is_not_called_a_batch(capsys, tmp_path):
    path = saved(noisy(), tmp_path / "bad.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert "other images of its batch" not in answer.err


def test_a_quantized_model_is_refused_for_int8_too(capsys, tmp_path):
    path = saved(quantized(), tmp_path / "bad.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", "--int8", *CALIB, "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "quantized already", "give the float ONNX file")


WHOLE = small().SerializeToString()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("does not exist",)),
        (b"", ("0 bytes",)),
        (b"hello, I am a text file\n", ("no ONNX",)),
        (WHOLE[: len(WHOLE) // 2], ("damaged or no ONNX file",)),
        (WHOLE[:-3], ("bad.onnx",)),
        (bytes(255 - byte for byte in WHOLE), ("damaged or no ONNX file",)),
        (samples.checkpoint("ghostnet_050").read_bytes()[:4000], ("bad.onnx",)),
    ],
    ids=["missing", "empty", "text", "half", "nearly whole", "inverted", "a checkpoint"],
)
def test_a_file_that_is_no_onnx_is_refused(content, words, capsys, tmp_path):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, *words)


def test_a_folder_called_like_a_model_is_refused(capsys, tmp_path):
    (tmp_path / "bad.onnx").mkdir()

    answer = run(capsys, "export", tmp_path / "bad.onnx", "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "cannot be read")


def test_every_truncation_and_every_flipped_byte_is_a_sentence_or_a_model(tmp_path):
    from ghostdeploy.deploy.intake.model import OnnxModel, open_onnx
    from ghostdeploy.errors import BadInput

    rng = np.random.default_rng(0)
    path = tmp_path / "bad.onnx"
    messages = []
    for _ in range(150):
        data = bytearray(WHOLE)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data if rng.random() < 0.7 else data[: rng.integers(len(data))])
        try:
            assert isinstance(open_onnx(path), OnnxModel)
        except BadInput as error:
            messages.append(error.message)
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


def beside(tmp_path, location):
    """Writes a model whose weights lie elsewhere."""
    folder = tmp_path / "models"
    folder.mkdir()
    model = small()
    (tmp_path / "secret.data").write_bytes(weight(model, "stem.conv.weight").raw_data)
    tensor = weight(model, "stem.conv.weight")
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return saved(model, folder / "bad.onnx")


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "back", "empty"])
def test_weights_outside_the_folder_are_refused(kind, capsys, tmp_path):
    places = {
        "parent": "../secret.data",
        "absolute": str(tmp_path / "secret.data"),
        "link": "link.data",
        "back": "sub/../../secret.data",
        "empty": "",
    }
    path = beside(tmp_path, places[kind])
    if kind == "link":
        (path.parent / "link.data").symlink_to(tmp_path / "secret.data")

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "outside its folder", "refused")


def test_weights_that_are_missing_or_short_are_named(capsys, tmp_path):
    path = beside(tmp_path, "weights.data")
    missing = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")
    (path.parent / "weights.data").write_bytes(b"1234")
    short = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(missing, 3, "weights.data", "copy that file beside it")
    assert_one_sentence(short, 3, "stem.conv.weight", "4 bytes")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--weights", "some.pth"), ("--weights", "finished ONNX file")),
        (("--num-classes", "5"), ("--num-classes", "finished ONNX file")),
        (("--align-channels", "8"), ("--align-channels", "PyTorch")),
        (("--image-size", "64"), ("32 pixels", "--image-size says 64")),
        (("--int8",), ("calibration images", "--calib")),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_an_option_that_says_nothing_to_a_finished_file_is_refused(options, words, capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", *options, "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, *words)


def test_an_onnx_file_as_weights_is_sent_to_its_place(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    answer = run(capsys, "export", "--weights", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, "is a whole model", f"ghostdeploy export {path}")


def test_a_batch_that_is_built_into_the_graph_is_named(capsys, tmp_path):
    model = small(batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 8, 16, 16]), "fixed"))
    path = saved(behind(model, helper.make_node("Reshape", ["inner", "fixed"], ["map"])), tmp_path / "mine.onnx")

    free = run(capsys, "export", path, "-t", "onnx", "--batch", "dynamic", "-o", tmp_path / "out")
    single = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out", "--json")

    assert_one_sentence(free, 2, "batch 1", "batch dynamic", "--batch 1")
    assert single.document["bundles"][0]["manifest"]["verdict"] == "passed"


def test_a_target_that_is_made_from_pytorch_takes_no_onnx_file(capsys, tmp_path, monkeypatch):
    row = dataclasses.replace(targets.find("onnx"), name="fromtorch", intake=None)
    monkeypatch.setitem(targets.TARGETS, "fromtorch", row)
    path = saved(small(), tmp_path / "mine.onnx")

    named = run(capsys, "export", path, "-t", "fromtorch", "-o", tmp_path)
    every = run(capsys, "export", path, "-t", "all", "-o", tmp_path, "--dry-run", "--json")

    assert_one_sentence(named, 2, "fromtorch is made from the PyTorch model", "-t onnx")
    assert "fromtorch" not in every.document["targets"]


def test_tflite_is_made_from_the_pytorch_model(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    answer = run(capsys, "export", path, "-t", "tflite", "-o", tmp_path)

    assert_one_sentence(answer, 2, "tflite is made from the PyTorch model", "-t onnx, openvino, tensorrt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("No such file", "one class name on each line")),
        ("a\n\nb\nc\nd\n", ("names 4 of 5 classes: line 2 is empty", "on every line")),
        ("a\n\n \nb\nc\n\n", ("names 3 of 5 classes: lines 2, 3 are empty",)),
        ("a\n\nb\n", ("2 lines and 1 empty ones", "5 classes")),
    ],
)
def test_a_label_file_is_told_what_is_wrong_with_it(text, words, tmp_path):
    path = tmp_path / "names.txt"
    if text is not None:
        path.write_text(text)

    with pytest.raises(DataError) as caught:
        read_labels(path, None, 5)

    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"
    assert "UTF-8" not in caught.value.hint


def test_labels_that_do_not_fit_are_refused(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")
    (tmp_path / "names.txt").write_text("a\nb\n")

    answer = run(capsys, "export", path, "-t", "onnx", "--labels", tmp_path / "names.txt", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "2 lines", "5 classes")


def test_missing_packages_are_named_without_torch(monkeypatch):
    monkeypatch.setattr(targets, "find_spec", lambda name: None)

    with pytest.raises(
        targets.MissingDependency, match="export to openvino needs onnx, onnxsim, onnxruntime"
    ) as caught:
        targets.require_export([targets.find("openvino")], targets.intake_of("model.onnx"))
    assert caught.value.hint == 'pip install "ghostdeploy[intake,openvino-runtime]"'

"""ONNX files of all ages: old operators keep their meaning, functions are written out, and what is too new is said.

Whatever differs is blamed on what made the difference.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.deploy.intake.onnx import difference
from ghostdeploy.deploy.intake.onnx.model import open_onnx
from ghostdeploy.deploy.intake.onnx.opset import OPSET, opset_of, upgrade
from ghostdeploy.deploy.intake.onnx.reference import OnnxReference
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.errors import CheckpointError, UsageError
from tests.commands import assert_one_sentence, run
from tests.onnx_files import saved, small


def one_node(node, opset, *constants, shape=(1, 3, 6, 6)):
    """A graph of one operator, of an old opset."""
    values = [numpy_helper.from_array(array, name) for name, array in constants]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", None))]
    graph = helper.make_graph([node], "old", ends[:1], ends[1:], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


def enlarging(opset, mode, scales):
    sizes = np.array([1, 1, *scales], np.float32)
    if opset < 9:
        return one_node(helper.make_node("Upsample", ["x"], ["y"], mode=mode, scales=sizes.tolist()), opset)
    kind = "Upsample" if opset == 9 else "Resize"
    return one_node(helper.make_node(kind, ["x", "s"], ["y"], mode=mode), opset, ("s", sizes))


def places(count, shape=(3, 6, 6)):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


@pytest.mark.parametrize("scales", [(2, 2), (3, 3), (1.5, 2.5), (7 / 3, 1.25)])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_old_enlargements_keep_every_value(opset, mode, scales):
    model = enlarging(opset, mode, scales)
    x = places(1)

    raised = upgrade(model, "here")

    assert opset_of(raised) == OPSET
    np.testing.assert_array_equal(GraphRunner(raised)(x)[0], GraphRunner(model)(x)[0])


@pytest.mark.parametrize("scales", [(0.5, 0.5), (0.4, 0.7), (0.5, 1)])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_old_reductions_keep_every_value(mode, scales):
    model = enlarging(10, mode, scales)
    x = places(1)

    np.testing.assert_array_equal(GraphRunner(upgrade(model, "here"))(x)[0], GraphRunner(model)(x)[0])


OLD = {
    "softmax over all that follows": (helper.make_node("Softmax", ["x"], ["y"], axis=1), 11),
    "clip by attributes": (helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.5), 10),
    "pads by attribute": (helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5), 9),
    "slice by attributes": (helper.make_node("Slice", ["x"], ["y"], axes=[2], starts=[1], ends=[5]), 9),
    "squeeze by attribute": (helper.make_node("ReduceSum", ["x"], ["y"], axes=[2], keepdims=0), 12),
    "split by attribute": (helper.make_node("Split", ["x"], ["y", "z"], axis=1, split=[1, 2]), 12),
    "average at the border": (helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1] * 4), 8),
    "dropout": (helper.make_node("Dropout", ["x"], ["y"], ratio=0.5), 10),
}


@pytest.mark.parametrize(("node", "opset"), OLD.values(), ids=OLD)
def test_other_old_operators_keep_every_value(node, opset):
    model = one_node(node, opset)
    x = places(1)

    np.testing.assert_array_equal(GraphRunner(upgrade(model, "here"))(x)[0], GraphRunner(model)(x)[0])


def with_enlargement(opset):
    """The small network with a map that is twice as large, as its second output."""
    model = small(opset=opset)
    next(one for one in model.graph.node if one.op_type == "Gemm").input.append("shift")  # needed before opset 11
    model.graph.initializer.append(numpy_helper.from_array(np.ones(5, np.float32), "shift"))
    node = next(one for one in model.graph.node if one.output[0] == "map")
    node.CopyFrom(helper.make_node("Upsample", ["l", "twice"], ["map"], mode="linear"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    return model


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_linear_upsample_of_opset_9_is_exported(target, capsys, tmp_path):
    path = saved(with_enlargement(9), tmp_path / "mine.onnx")

    answer = run(capsys, "export", path, "-t", target, "-o", tmp_path / "out", "--json")

    manifest = answer.document["bundles"][0]["manifest"]
    assert (answer.code, manifest["verdict"]) == (0, "passed")


def with_functions():
    """The small network with its first activation in a function that calls another with an attribute."""
    model = small()
    inner = helper.make_function(
        "own",
        "Act",
        ["x"],
        ["y"],
        [helper.make_node("LeakyRelu", ["x"], ["y"])],
        [helper.make_opsetid("", 18)],
        ["alpha"],
    )
    inner.node[0].attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    )
    call = helper.make_node("Act", ["x"], ["y"], domain="own", alpha=0.25)
    both = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model.functions.extend([inner, helper.make_function("own", "Outer", ["x"], ["y"], [call], both)])
    model.opset_import.append(helper.make_opsetid("own", 1))
    node = next(one for one in model.graph.node if one.output[0] == "c")
    node.CopyFrom(helper.make_node("Outer", list(node.input), ["c"], domain="own"))
    return model


def test_local_functions_are_written_out(capsys, tmp_path):
    path = saved(with_functions(), tmp_path / "mine.onnx")

    opened = open_onnx(path).proto
    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out", "--json")

    assert (answer.code, answer.document["bundles"][0]["manifest"]["verdict"]) == (0, "passed")
    assert not opened.functions
    assert [one.domain for one in opened.opset_import] == [""]
    leaky = [node for node in opened.graph.node if node.op_type == "LeakyRelu"]
    assert [helper.get_attribute_value(one.attribute[0]) for one in leaky] == [0.25]
    x = places(2, (3, 32, 32))
    for ours, theirs in zip(GraphRunner(opened)(x), GraphRunner(with_functions())(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def recursive(model):
    model.functions[0].node[0].CopyFrom(helper.make_node("Outer", ["x"], ["y"], domain="own"))
    model.functions[0].opset_import.append(helper.make_opsetid("own", 1))


def of_another_opset(model):
    model.functions[0].opset_import[0].version = 17


def quantizing(model):
    model.functions[0].node[0].CopyFrom(helper.make_node("QuantizeLinear", ["x", "x"], ["y"]))


def doubling(model):
    for index in range(20):
        last = model.functions[-1].name
        twice = [helper.make_node(last, ["x"], ["h"], domain="own"), helper.make_node(last, ["h"], ["y"], domain="own")]
        both = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"Twice{index}", ["x"], ["y"], twice, both))
    next(one for one in model.graph.node if one.op_type == "Outer").op_type = "Twice19"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (recursive, ("calls itself",)),
        (of_another_opset, ("opset 18", "function Act", "opset 17")),
        (quantizing, ("already quantized", "1 QuantizeLinear")),
        (doubling, ("nodes with its functions inlined", "at most 262144")),
    ],
)
def test_functions_that_cannot_be_written_out_are_one_sentence(change, words, capsys, tmp_path):
    model = with_functions()
    change(model)

    answer = run(capsys, "export", saved(model, tmp_path / "mine.onnx"), "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, *words)


@pytest.mark.parametrize(
    ("format_version", "opset", "words"),
    [(99, 18, ("IR version 99",)), (8, 99, ("opset 99", "expected 7 to")), (3, 6, ("opset 6", "expected 7 to"))],
)
def test_a_version_that_cannot_be_read_is_named(format_version, opset, words, capsys, tmp_path):
    model = small(opset=opset)
    model.ir_version = format_version

    answer = run(capsys, "export", saved(model, tmp_path / "mine.onnx"), "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, *words)


def opened(model, tmp_path):
    """The model as it is read, four images, and what the file gives for them."""
    found = open_onnx(saved(model, tmp_path / "mine.onnx"))
    images = places(4, (3, 32, 32))
    return found, images, OnnxReference(found).outputs(images)


def replaced(model, output, *nodes):
    """Puts nodes in the place of the one that makes `output`."""
    kept = [node for node in model.graph.node if output not in node.output]
    place = next(index for index, node in enumerate(model.graph.node) if output in node.output)
    ordered = onnx.GraphProto(node=[*kept[:place], *nodes, *kept[place:]]).node
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    return model


def test_images_of_a_batch_that_meet_are_named_as_such(tmp_path):
    mean = helper.make_node("ReduceMean", ["l", "first"], ["over"], keepdims=1)
    model = replaced(small(), "map", mean, helper.make_node("Sub", ["l", "over"], ["map"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    model, images, outputs = opened(model, tmp_path)

    with pytest.raises(UsageError, match="depend on the other images in a batch"):
        difference.require_same(shaped(model, 1), images, outputs, 1, model)


def test_a_conversion_that_changes_the_outputs_is_not_blamed_on_the_batch(tmp_path, monkeypatch):
    """What the converter of opsets alone makes of an old linear enlargement."""
    model, images, outputs = opened(with_enlargement(9), tmp_path)
    wrong = onnx.version_converter.convert_version(model.proto, OPSET)
    monkeypatch.setattr(difference, "upgrade", lambda *_: wrong)

    with pytest.raises(CheckpointError, match="has opset 9 and gives different outputs when converted to 18"):
        difference.require_same(wrong, images, outputs, 1, model)


def shaped(model, batch):
    from ghostdeploy.deploy.intake.onnx.interface import with_shape

    sizes = dict.fromkeys(model.input_names, (3, 32, 32))
    return with_shape(upgrade(model.proto, model.name), batch, sizes)


def test_what_is_the_same_passes(tmp_path):
    model, images, outputs = opened(small(), tmp_path)

    for batch in (1, 3, None):
        difference.require_same(shaped(model, batch), images, outputs, batch, model)

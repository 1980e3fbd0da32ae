"""ONNX operators that readers read differently become a form that all read alike, and keep their values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ghostdeploy as gd
from ghostdeploy.convert.graph.simplify import simplify
from ghostdeploy.deploy.intake.onnx.interface import with_shape
from ghostdeploy.deploy.intake.onnx.model import open_onnx
from ghostdeploy.deploy.intake.onnx.plain_forms import write_plainly
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from tests.conftest import require

SIZE = 15
SIZES = {"image": (3, SIZE, SIZE)}
RNG = np.random.default_rng(0)
CONSTANTS = {
    "w": RNG.normal(size=(8, 3, 3, 3)),
    "even": RNG.normal(size=(8, 8, 4, 4)),
    "two": RNG.normal(size=(8, 4, 3, 3)),
    "scale": RNG.normal(size=8),
    "bias": RNG.normal(size=8),
    "head": RNG.normal(size=(8, 5)),
}


def network(*middle, opset=21, batch="n"):
    """Returns a classifier with nodes between `a` (n, 8, h, w) and `b`."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["a"]),
        *middle,
        helper.make_node("GlobalAveragePool", ["b"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"]),
    ]
    ends = (("image", (batch, 3, SIZE, SIZE)), ("y", (batch, 5)))
    image, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    used = {name for node in nodes for name in node.input}
    values = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in CONSTANTS.items() if k in used]
    graph = helper.make_graph(nodes, "net", [image], [y], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(kind, *weights, **options):
    return helper.make_node(kind, ["a", *weights], ["b"], **options)


WAYS = ("SAME_UPPER", "SAME_LOWER", "VALID")
POOL = {"kernel_shape": [4, 3], "strides": [2, 3]}
UP = {"strides": [2, 3], "group": 2}
PADDED = {
    **{
        f"conv {way} {step}": node("Conv", "even", auto_pad=way, strides=[step, 1])
        for way in WAYS
        for step in (1, 2, 3)
    },
    **{f"max {way}": node("MaxPool", auto_pad=way, **POOL) for way in WAYS},
    **{f"average {way}": node("AveragePool", auto_pad=way, **POOL) for way in WAYS},
    **{f"average with padding {way}": node("AveragePool", auto_pad=way, count_include_pad=1, **POOL) for way in WAYS},
    **{f"up {way}": node("ConvTranspose", "two", auto_pad=way, **UP) for way in WAYS},
    **{f"up to {way}": node("ConvTranspose", "two", auto_pad=way, output_shape=[25, 36], **UP) for way in WAYS},
    "up to": node("ConvTranspose", "two", output_shape=[24, 38], **UP),
    "up by more": node("ConvTranspose", "two", output_shape=[26, 38], output_padding=[1, 2], **UP),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_is_written_in_numbers(name):
    model = network(PADDED[name])
    x = RNG.normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)

    plain = write_plainly(with_shape(model, None, SIZES))

    assert not {"auto_pad", "output_shape"} & {one.name for each in plain.graph.node for one in each.attribute}
    np.testing.assert_array_equal(GraphRunner(plain)(x)[0], GraphRunner(model)(x)[0])
    onnx.checker.check_model(plain, full_check=True)


def test_what_has_no_such_form_is_left_as_it_is():
    for odd in (
        node("MaxPool", auto_pad="SAME_UPPER", ceil_mode=1, **POOL),
        node("ConvTranspose", "two", output_shape=[40, 60], **UP),
    ):
        assert odd in write_plainly(with_shape(network(odd), 1, SIZES)).graph.node
    ordinary = with_shape(network(node("Conv", "even", auto_pad="NOTSET")), 1, SIZES)
    assert write_plainly(ordinary) is ordinary


GROUPS = (
    helper.make_node("GroupNormalization", ["a", "scale", "bias"], ["g"], num_groups=4, epsilon=0.1),
    helper.make_node("Relu", ["g"], ["h"]),
    helper.make_node("GroupNormalization", ["h", "scale", "bias"], ["b"], num_groups=2, name="second"),
)


@pytest.mark.parametrize("batch", [1, 2, None])
def test_group_normalization_becomes_what_the_checker_can_follow(batch):
    model = network(*GROUPS)
    x = RNG.normal(size=(batch or 3, 3, SIZE, SIZE)).astype(np.float32)

    plain = write_plainly(with_shape(model, batch, SIZES))

    np.testing.assert_allclose(GraphRunner(plain)(x)[0], GraphRunner(model)(x)[0], rtol=1e-4, atol=1e-6)
    onnx.checker.check_model(plain, full_check=True)


def test_a_reduction_behind_another_keeps_its_rank():
    axes = {"few": [-2, -1], "all": [0, 1]}
    middle = (
        helper.make_node("ReduceMean", ["a", "few"], ["m"], keepdims=0),
        helper.make_node("ReduceMean", ["m", "all"], ["k"], keepdims=1),
        helper.make_node("Reshape", ["k", "one"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["b"]),
    )
    model = network(*middle, opset=18, batch=2)
    values = axes | {"one": [1, 1, 1, 1]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in values.items())
    x = RNG.normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    wanted = GraphRunner(model)(x)[0]

    np.testing.assert_allclose(GraphRunner(simplify(model))(x)[0], wanted, rtol=1e-5)


@pytest.mark.parametrize("target", ["onnx", "openvino", "ncnn"])
def test_every_target_takes_them(target, tmp_path):
    require(target)
    middle = (
        *GROUPS[:2],
        helper.make_node("Conv", ["h", "even"], ["d"], auto_pad="SAME_LOWER", strides=[2, 2]),
        helper.make_node("ConvTranspose", ["d", "two"], ["b"], output_shape=[13, 13], group=2, strides=[2, 2]),
    )
    onnx.save(network(*middle), tmp_path / "net.onnx")

    spec = gd.Preprocess(size=SIZE, crop_fraction=1.0)
    bundle = gd.export(tmp_path / "net.onnx", target=target, preprocess=spec, out=tmp_path / "out")

    assert bundle.manifest.verdict == "passed"


def test_nodes_of_one_name_are_told_apart(tmp_path):
    model = network(node("Relu", name="same"))
    for each in model.graph.node:
        each.name = "same"
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "net.onnx")

    opened = open_onnx(tmp_path / "net.onnx")

    assert len({each.name for each in opened.proto.graph.node}) == len(model.graph.node)
    assert GraphRunner(opened.proto)(np.zeros((1, 3, SIZE, SIZE), np.float32))[0].shape == (1, 5)

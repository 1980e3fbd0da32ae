"""The ONNX passes that only remove: where they apply, where they must not; and that every pass is proven."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ghostdeploy.deploy.intake.onnx.fold_constants import FoldConstants
from ghostdeploy.deploy.intake.onnx.passes import Site
from ghostdeploy.deploy.intake.onnx.remove_no_ops import RemoveNoOps
from ghostdeploy.deploy.intake.onnx.rewrite import rewrite
from ghostdeploy.errors import GateFailed
from tests.onnx_graphs import applied, graph, node

NO_OPS = {
    "Identity": node("Identity", "x", "a"),
    "Dropout": node("Dropout", "x", "a"),
    "Pad": node("Pad", "x zeros", "a"),
    "Transpose": node("Transpose", "x", "a", perm=[0, 1, 2, 3]),
    "Reshape": node("Reshape", "x sizes", "a"),
    "Cast": node("Cast", "x", "a", to=TensorProto.FLOAT),
    "CastLike": node("CastLike", "x one", "a"),
    "Slice": node("Slice", "x start end axes", "a"),
    "Concat": node("Concat", "x", "a", axis=1),
    "Add": node("Add", "x none", "a"),
    "Mul": node("Mul", "one x", "a"),
    "Div": node("Div", "x one", "a"),
}
CONSTANTS = {
    "zeros": np.zeros(8, np.int64),
    "sizes": np.array([0, 8, 9, 7]),
    "one": np.ones((1, 8, 1, 1), np.float32),
    "none": np.zeros(1, np.float32),
    "start": np.array([0]),
    "end": np.array([99]),
    "axes": np.array([2]),
    "step": np.array([-1]),
    "back": np.array([-99]),
    "last": np.array([-1]),
    "wide": np.zeros((2, 1, 8, 9, 7), np.float32),
    "pads": np.array([0, 0, 1, 0, 0, 0, -1, 0]),
}


@pytest.mark.parametrize("kind", NO_OPS)
@pytest.mark.parametrize("place", ["inside", "output"])
def test_what_does_nothing_is_removed(kind, place):
    first, last = node("Relu", "x", "r"), node("Relu", "a", "y")
    middle = onnx.NodeProto()
    middle.CopyFrom(NO_OPS[kind])
    middle.input[:] = ["r" if name == "x" else name for name in middle.input]
    if place == "output":
        middle.output[:] = ["y"]

    sites, found = applied(
        RemoveNoOps(), graph([first, middle, *([last] if place == "inside" else [])], shape=(2, 8, 9, 7), **CONSTANTS)
    )

    assert (sites, set(found)) == (1, {"Relu"})


@pytest.mark.parametrize(
    "one",
    [
        node("Slice", "x last back axes step", "y"),
        node("Add", "x wide", "y"),
        node("Div", "one x", "y"),
        node("Sub", "none x", "y"),
        node("Transpose", "x", "y", perm=[0, 1, 3, 2]),
        node("Pad", "x pads", "y"),
        node("Identity", "x", "y"),
    ],
    ids=["reversed", "broadcast", "1/x", "0-x", "transposed", "shifted", "an input handed out"],
)
def test_what_does_something_stays(one):
    assert applied(RemoveNoOps(), graph([one], shape=(2, 8, 9, 7), **CONSTANTS))[0] == 0


def test_constants_are_computed_once():
    nodes = [
        node("Transpose", "w", "t", perm=[1, 0]),
        node("Mul", "t two", "u"),
        helper.make_node("Constant", [], ["c"], value_float=3.0),
        node("MatMul", "x u", "a"),
        node("Add", "a c", "y"),
    ]

    model = graph(nodes, shape=("N", 8), w=(5, 8), two=np.float32([2]))

    assert applied(FoldConstants(), model) == (3, {"MatMul": 1, "Add": 1})


def test_random_numbers_and_growing_constants_stay():
    noise = [helper.make_node("RandomNormal", [], ["r"], shape=[1, 8], seed=1.0), node("Mul", "r none", "s")]
    grown = [node("Expand", "one much", "g"), node("ReduceMean", "g", "h", keepdims=0)]
    sum_up = [node("Add", "x s", "a"), node("Add", "a h", "y")]
    constants = {"none": np.zeros(1, np.float32), "one": np.ones(1, np.float32), "much": np.array([1 << 23])}
    model = graph([*noise, *grown, *sum_up], shape=("N", 8), **constants)

    folded = applied(FoldConstants(), model)[1]

    assert folded["RandomNormal"] == 1


class Wrong:
    """Doubles a weight and calls it exact."""

    name = "Wrong"

    def run(self, graph):
        layer = graph.nodes[0]
        before = onnx.NodeProto()
        before.CopyFrom(layer)
        weight = graph.array("w").astype(np.float64)
        graph.exact["v"] = weight * (1 + 1e-8)
        layer.input[1] = "v"
        constants = {"w": weight, "v": graph.exact["v"]}
        return 1, [Site(source="x", output="y", before=(before,), after=(layer,), constants=constants)]


class Careless:
    """Removes a ReLU as if it did nothing."""

    name = "Careless"

    def run(self, graph):
        return int(graph.bypass(graph.nodes[1], "a")), ()


def test_a_pass_that_changes_a_site_is_named():
    model = graph([node("Conv", "x w", "y")], w=(4, 8, 1, 1))

    with pytest.raises(GateFailed, match=r"fold pass Wrong changed y by 1\.0e-08 of its size, expected at most 1e-09"):
        rewrite(model, np.ones((1, 8, 9, 7), np.float32), [Wrong()])


def test_a_pass_without_sites_that_changes_a_bit_is_left_out(caplog):
    model = graph([node("Conv", "x w", "a"), node("Relu", "a", "y")], w=(4, 8, 1, 1))
    image = np.random.default_rng(0).normal(size=(1, 8, 9, 7)).astype(np.float32)

    after, (record,) = rewrite(model, image, [Careless()])

    assert [one.op_type for one in after.graph.node] == ["Conv", "Relu"]
    assert record.sites == 0
    assert "Careless is left out" in caplog.text

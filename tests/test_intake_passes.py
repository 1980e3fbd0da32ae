"""The ONNX passes: where they apply, where they must not, and that each is proven."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.deploy.intake.fold_batch_norm import FoldBatchNorm
from ghostdeploy.deploy.intake.fold_constants import FoldConstants
from ghostdeploy.deploy.intake.merge_branches import MergeBranches
from ghostdeploy.deploy.intake.passes import Site
from ghostdeploy.deploy.intake.remove_no_ops import RemoveNoOps
from ghostdeploy.deploy.intake.rewrite import rewrite
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.errors import GateFailed
from tests.onnx_files import norm

CHANNELS = 8


def node(kind, names, result, **settings):
    return helper.make_node(kind, names.split(), result.split(), **settings)


def batch_norm(name, source, result, **settings):
    keys = [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
    return helper.make_node("BatchNormalization", [source, *keys], result.split(), **settings)


def graph(nodes, shape=("N", CHANNELS, 9, 7), outputs=("y",), **arrays):
    """Returns a model of one input `x`; constants `w…` are random of the given shape, others as given."""
    rng = np.random.default_rng(0)
    constants = {}
    for name, value in arrays.items():
        if name.startswith("bn"):
            constants |= norm(name, value, rng)
        elif isinstance(value, tuple):
            constants[name] = rng.normal(size=value)
        else:
            constants[name] = value
    tensors = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, n) for n, a in constants.items()
    ]
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        tensors,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def applied(step, model):
    """Returns sites and operator counts, after checking that the outputs stay."""
    dims = model.graph.input[0].type.tensor_type.shape.dim[1:]
    batch = np.random.default_rng(1).normal(size=(2, *(dim.dim_value for dim in dims))).astype(np.float32)
    after, (record,) = rewrite(model, batch, [step])
    for was, now in zip(GraphRunner(model)(batch), GraphRunner(after)(batch), strict=True):
        assert np.allclose(was, now, rtol=1e-4, atol=1e-4)
    assert record.max_relative_error <= 1e-9
    onnx.checker.check_model(after, full_check=True)
    return record.sites, Counter(one.op_type for one in after.graph.node)


FOLDED = {
    "convolution": (node("Conv", "x w", "a", group=2), {"w": (6, 4, 3, 3), "bn": 6}),
    "convolution with bias": (node("Conv", "x w wb", "a", strides=[2, 1]), {"w": (6, 8, 1, 3), "wb": (6,), "bn": 6}),
    "transposed": (node("ConvTranspose", "x w", "a", strides=[2, 2]), {"w": (8, 6, 2, 2), "bn": 6}),
    "transposed with bias": (node("ConvTranspose", "x w wb", "a"), {"w": (8, 5, 3, 3), "wb": (5,), "bn": 5}),
}


@pytest.mark.parametrize("kind", FOLDED)
def test_batch_norm_folds_into_convolutions(kind):
    layer, arrays = FOLDED[kind]
    assert applied(FoldBatchNorm(), graph([layer, batch_norm("bn", "a", "y")], **arrays)) == (1, {layer.op_type: 1})


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["", " wb"])
def test_batch_norm_folds_into_linear_layers(transposed, bias):
    layer = node("Gemm", f"x w{bias}", "a", transB=transposed)
    weight = (5, CHANNELS) if transposed else (CHANNELS, 5)
    model = graph([layer, batch_norm("bn", "a", "y")], shape=("N", CHANNELS), w=weight, wb=(5,), bn=5)

    assert applied(FoldBatchNorm(), model) == (1, {"Gemm": 1})


CONV = node("Conv", "x w", "a")
NOT_FOLDED = {
    "read twice": ([CONV, batch_norm("bn", "a", "b"), node("Relu", "a", "c"), node("Add", "b c", "y")], ("y",)),
    "an output itself": ([CONV, batch_norm("bn", "a", "y")], ("y", "a")),
    "no layer before": ([CONV, node("Relu", "a", "b"), batch_norm("bn", "b", "y")], ("y",)),
    "weights of the input": (
        [
            node("GlobalAveragePool", "x", "p"),
            node("Mul", "w p", "v"),
            node("Conv", "x v", "a"),
            batch_norm("bn", "a", "y"),
        ],
        ("y",),
    ),
}


@pytest.mark.parametrize("kind", NOT_FOLDED)
def test_batch_norm_stays_where_folding_would_be_wrong(kind):
    nodes, outputs = NOT_FOLDED[kind]
    shape = (1, CHANNELS, 9, 7)

    sites, found = applied(FoldBatchNorm(), graph(nodes, shape=shape, outputs=outputs, w=(8, 8, 1, 1), bn=8))

    assert (sites, found["BatchNormalization"]) == (0, 1)


def test_a_scaled_gemm_keeps_its_batch_norm():
    layer = node("Gemm", "x w", "a", alpha=2.0)
    model = graph([layer, batch_norm("bn", "a", "y")], shape=("N", CHANNELS), w=(CHANNELS, 5), bn=5)

    assert applied(FoldBatchNorm(), model)[0] == 0


def test_a_transposed_convolution_of_groups_keeps_its_batch_norm():
    layer = node("ConvTranspose", "x w", "a", group=2)

    assert applied(FoldBatchNorm(), graph([layer, batch_norm("bn", "a", "y")], w=(8, 3, 2, 2), bn=6))[0] == 0


def test_shared_weights_keep_their_value_for_the_other_reader():
    nodes = [CONV, batch_norm("bn", "a", "b"), node("Conv", "x w", "c"), node("Sub", "b c", "y")]

    assert applied(FoldBatchNorm(), graph(nodes, w=(8, 8, 1, 1), bn=8)) == (1, {"Conv": 2, "Sub": 1})


def branches(first, second, **arrays):
    return graph([first, second, node("Add", "a b", "y")], **arrays)


PADDED = {"pads": [1, 1, 1, 1]}
MERGED = {
    "3×3 and 1×1": (node("Conv", "x w wb", "a", **PADDED), node("Conv", "x w1", "b"), (6, 8, 3, 3), (6, 8, 1, 1)),
    "1×1 and 3×3": (node("Conv", "x w1", "a"), node("Conv", "x w wb", "b", **PADDED), (6, 8, 3, 3), (6, 8, 1, 1)),
    "strided": (
        node("Conv", "x w wb", "a", strides=[2, 2], **PADDED),
        node("Conv", "x w1", "b", strides=[2, 2]),
        (6, 8, 3, 3),
        (6, 8, 1, 1),
    ),
    "off centre": (
        node("Conv", "x w wb", "a", pads=[2, 0, 0, 1]),
        node("Conv", "x w1", "b", pads=[1, 0, 0, 0]),
        (6, 8, 3, 3),
        (6, 8, 2, 2),
    ),
    "more groups in the smaller": (
        node("Conv", "x w wb", "a", group=2, **PADDED),
        node("Conv", "x w1", "b", group=4),
        (6 * 2, 4, 3, 3),
        (6 * 2, 2, 1, 1),
    ),
    "equal and dilated": (
        node("Conv", "x w wb", "a", dilations=[2, 2]),
        node("Conv", "x w1", "b", dilations=[2, 2]),
        (6, 8, 3, 3),
        (6, 8, 3, 3),
    ),
}


@pytest.mark.parametrize("kind", MERGED)
def test_parallel_convolutions_become_one(kind):
    first, second, large, small = MERGED[kind]
    model = branches(first, second, w=large, wb=large[:1], w1=small)

    assert applied(MergeBranches(), model) == (1, {"Conv": 1})


@pytest.mark.parametrize("group", [1, 2, 8])
def test_a_batch_norm_beside_a_convolution_merges(group):
    layer = node("Conv", "x w", "b", group=group, **PADDED)

    model = branches(batch_norm("bn", "x", "a"), layer, w=(8, 8 // group, 3, 3), bn=8)

    assert applied(MergeBranches(), model) == (1, {"Conv": 1})


WIDE, THIN = (8, 8, 3, 3), (8, 8, 1, 1)
NOT_MERGED = {
    "other strides": ([node("Conv", "x w", "a", strides=[2, 2], **PADDED), node("Conv", "x w1", "b")], WIDE, THIN),
    "other places": (
        [node("Conv", "x w", "a", pads=[0, 0, 3, 3]), node("Conv", "x w1", "b", pads=[1, 1, 1, 1])],
        WIDE,
        (8, 8, 2, 2),
    ),
    "padding by name": ([node("Conv", "x w", "a", auto_pad="SAME_UPPER"), node("Conv", "x w1", "b")], WIDE, THIN),
    "depthwise and dense": (
        [node("Conv", "x w", "a", group=8, **PADDED), node("Conv", "x w1", "b")],
        (8, 1, 3, 3),
        THIN,
    ),
    "other tensors": (
        [node("Relu", "x", "z"), node("Conv", "x w", "a", **PADDED), node("Conv", "z w1", "b")],
        WIDE,
        THIN,
    ),
}


@pytest.mark.parametrize("kind", NOT_MERGED)
def test_branches_that_look_at_other_places_stay(kind):
    nodes, large, small = NOT_MERGED[kind]
    shape = (2, 8, 1, 1) if kind == "other strides" else (2, 8, 9, 9)  # the sum of such branches needs a single place

    assert applied(MergeBranches(), graph([*nodes, node("Add", "a b", "y")], shape=shape, w=large, w1=small))[0] == 0


def test_a_branch_that_something_else_reads_stays():
    nodes = [node("Conv", "x w", "a"), node("Conv", "x w1", "b"), node("Add", "a b", "c"), node("Mul", "c a", "y")]

    assert applied(MergeBranches(), graph(nodes, w=(8, 8, 1, 1), w1=(8, 8, 1, 1)))[0] == 0


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

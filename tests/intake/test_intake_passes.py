"""The ONNX passes that compute: where they apply, where they must not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from ghostdeploy.deploy.intake.onnx.fold_batch_norm import FoldBatchNorm
from ghostdeploy.deploy.intake.onnx.merge_branches import MergeBranches
from tests.onnx_graphs import CHANNELS, applied, batch_norm, graph, node

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


def halves(**shapes):
    rng = np.random.default_rng(0)
    return {name.replace("_", "."): rng.uniform(0.5, 1, shape).astype(np.float16) for name, shape in shapes.items()}


def test_weights_of_another_type_than_float32_stay():
    constants = halves(w=(8, 8, 1, 1), v=(8, 8, 1, 1), n_weight=8, n_bias=8, n_running_mean=8, n_running_var=8)
    constants = {name.replace("running.", "running_"): array for name, array in constants.items()}
    ends = [node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Cast", "r", "y", to=TensorProto.FLOAT)]
    normed = [ends[0], node("Conv", "h w", "a"), batch_norm("n", "a", "r"), ends[1]]
    added = [ends[0], node("Conv", "h w", "a"), node("Conv", "h v", "b"), node("Add", "a b", "r"), ends[1]]

    assert applied(FoldBatchNorm(), graph(normed, **constants))[0] == 0
    assert applied(MergeBranches(), graph(added, **constants))[0] == 0


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

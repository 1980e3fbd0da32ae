"""What random networks brought to light, as small cases: each computes what PyTorch does, or is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.convert.base import RefusedError
from tests.conftest import require


@pytest.fixture(autouse=True, scope="module")
def torch_here():
    require("native")
    require("executorch")  # its reader of ONNX graphs is what PyTorch computes here


def graph_of(*size):
    from tests.native_networks import Graph

    graph = Graph(1)
    graph.size = graph.shape = size
    return graph


def flattened_map():
    graph = graph_of(5, 4, 3)
    made, _ = graph.convolve("input", graph.shape, 6, (3, 3))
    flat = graph.node("Flatten", [made])
    return graph, [(graph.node("Gemm", [flat, graph.weights(72, 7)]), (1, 7))]


def flattened_map_of_a_group_that_streams():
    graph = graph_of(3, 24, 24)
    made, _ = graph.convolve("input", graph.shape, 2, (3, 3))
    return graph, [(graph.node("Flatten", [graph.node("Relu", [made])]), (1, 1152))]


def map_that_leaves_twice():
    graph = graph_of(5, 4, 3)
    made, _ = graph.convolve("input", graph.shape, 6, (3, 3))
    return graph, [(made, (1, 6, 4, 3)), (graph.node("Transpose", [made], perm=[0, 2, 3, 1]), (1, 4, 3, 6))]


def channels_last_that_leave_as_planes():
    graph = graph_of(4, 3, 5)
    planes = graph.node("Transpose", ["input"], perm=[0, 3, 1, 2])
    made, _ = graph.convolve(planes, (5, 4, 3), 6, (3, 3))
    return graph, [(made, (1, 6, 4, 3)), (planes, (1, 5, 4, 3))]


def image_that_a_stem_and_others_read():
    graph = graph_of(3, 9, 8)
    made, _ = graph.convolve("input", graph.shape, 3, (3, 3))
    return graph, [(graph.node("Relu", [graph.node("Add", [made, "input"])]), (1, 3, 9, 8))]


def part_of_an_image():
    graph = graph_of(5, 9, 8)
    part = cut(graph, "input", 1, 3)
    return graph, [(graph.convolve(part, (2, 9, 8), 4, (3, 3))[0], (1, 4, 9, 8))]


def slice_from_before_the_first_channel():
    graph = graph_of(3, 4, 5)
    made, _ = graph.convolve("input", graph.shape, 6, (1, 1))
    return graph, [(graph.node("Relu", [cut(graph, made, -9, 4)]), (1, 4, 4, 5))]


def sum_of_a_map_whose_reader_skips_the_last_row():
    graph = graph_of(16, 9, 60)
    first, _ = graph.convolve("input", graph.shape, 8, (1, 1))
    pooled = graph.node("MaxPool", [first], kernel_shape=[2, 2], strides=[3, 3])
    second, _ = graph.convolve("input", graph.shape, 8, (3, 3))
    joined = graph.node("Concat", [first, second], axis=1)
    added = graph.node("Add", [joined, "input"])
    gate, _ = graph.convolve(graph.node("GlobalAveragePool", [pooled]), (8, 1, 1), 16, (1, 1))
    return graph, [(graph.node("Mul", [added, gate]), (1, 16, 9, 60))]


def map_of_which_a_reader_skips_the_last_row_and_another_does_not():
    graph = graph_of(18, 15, 30)
    made = graph.node("Sigmoid", ["input"])
    pooled = graph.node("AveragePool", [made], kernel_shape=[2, 2], strides=[2, 2])  # 105 pixels, of which 14 rows are
    small, _ = graph.convolve(pooled, (18, 7, 15), 24, (1, 1))
    large, _ = graph.convolve(made, (18, 15, 30), 24, (1, 1))
    return graph, [(small, (1, 24, 7, 15)), (large, (1, 24, 15, 30))]


def map_whose_last_row_another_group_reads():
    graph = graph_of(3, 27, 20)
    pooled = graph.node("MaxPool", ["input"], kernel_shape=[2, 2], strides=[3, 3])
    first, _ = graph.convolve(pooled, (3, 9, 7), 3, (1, 1))
    second, _ = graph.convolve(first, (3, 9, 7), 3, (3, 3))
    large = resized(graph, second, (3, 27, 20))
    mean = graph.node("GlobalAveragePool", [graph.node("Mul", [large, "input"])])
    return graph, [(first, (1, 3, 9, 7)), (mean, (1, 3, 1, 1))]


def resized(graph, name, shape):
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.node("Resize", [name, "", "", graph.constant([1, *shape], np.int64)], **how)


def gate_of_half_the_size_of_a_map_that_streams():
    graph = graph_of(6, 45, 41)
    made, _ = graph.convolve("input", graph.shape, 10, (3, 3))
    pooled = graph.node("AveragePool", [made], kernel_shape=[2, 2], strides=[2, 2])
    first, _ = graph.convolve(pooled, (10, 22, 20), 10, (1, 5), 1, 10)
    second, _ = graph.convolve(first, (10, 22, 20), 10, (5, 1), 1, 10)
    gate = resized(graph, graph.node("Sigmoid", [second]), (10, 45, 41))
    last, _ = graph.convolve(graph.node("Mul", [gate, made]), (10, 45, 41), 7, (3, 3))
    return graph, [(last, (1, 7, 45, 41))]


def gate_that_is_larger_than_its_map():
    graph = graph_of(6, 45, 41)
    small, shape = graph.convolve("input", graph.shape, 6, (3, 3), 2)
    large, _ = graph.convolve("input", graph.shape, 6, (1, 1))
    product = graph.node("Mul", [small, resized(graph, graph.node("Sigmoid", [large]), shape)])
    return graph, [(graph.convolve(product, shape, 9, (3, 3))[0], (1, 9, *shape[1:]))]


def vector_times_a_map_that_was_resized():
    graph = graph_of(6, 9, 8)
    gate = graph.node("Sigmoid", [graph.node("GlobalAveragePool", ["input"])])
    product = graph.node("Mul", [gate, resized(graph, graph.node("Relu", ["input"]), (6, 14, 11))])
    return graph, [(graph.convolve(product, (6, 14, 11), 5, (3, 3))[0], (1, 5, 14, 11))]


def map_times_what_was_resized_to_one_pixel():
    graph = graph_of(6, 9, 8)
    made, _ = graph.convolve("input", graph.shape, 6, (3, 3))
    product = graph.node("Mul", [made, resized(graph, graph.node("Sigmoid", ["input"]), (6, 1, 1))])
    return graph, [(product, (1, 6, 9, 8))]


def cut(graph, name, first, last):
    return graph.node("Slice", [name, *(graph.constant([value], np.int64) for value in (first, last, 1))])


RIGHT = [
    flattened_map,
    flattened_map_of_a_group_that_streams,
    map_that_leaves_twice,
    channels_last_that_leave_as_planes,
    image_that_a_stem_and_others_read,
    part_of_an_image,
    slice_from_before_the_first_channel,
    sum_of_a_map_whose_reader_skips_the_last_row,
    map_of_which_a_reader_skips_the_last_row_and_another_does_not,
    map_whose_last_row_another_group_reads,
    gate_of_half_the_size_of_a_map_that_streams,
    gate_that_is_larger_than_its_map,
    vector_times_a_map_that_was_resized,
    map_times_what_was_resized_to_one_pixel,
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    from tests.native_networks import compile_all, model_of

    models = [model_of(*case()) for case in RIGHT]
    networks = compile_all(models, tmp_path_factory.mktemp("found") / "networks")
    return {case.__name__: pair for case, pair in zip(RIGHT, zip(models, networks, strict=True), strict=True)}


@pytest.mark.parametrize("name", [case.__name__ for case in RIGHT])
def test_it_is_computed(name, compiled):
    from tests.native_networks import in_float64

    model, network = compiled[name]
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    for found, wanted in zip(network(image), in_float64(model, [image]), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def one_plane_times_many():
    graph = graph_of(3, 4, 5)
    plane, _ = graph.convolve("input", graph.shape, 1, (1, 1))
    return graph, [(graph.node("Mul", ["input", graph.node("Sigmoid", [plane])]), (1, 3, 4, 5))]


def one_value_per_column():
    graph = graph_of(5, 4, 5)
    return graph, [(graph.node("Add", ["input", graph.constant(np.arange(5))]), (1, 5, 4, 5))]


def vector_that_meets_columns():
    graph = graph_of(5, 4, 5)
    flat = graph.node("Flatten", [graph.node("GlobalAveragePool", ["input"])])
    return graph, [(graph.node("Mul", ["input", flat]), (1, 5, 4, 5))]


def softmax_of_one_value():
    graph = graph_of(5, 4, 5)
    return graph, [(graph.node("Softmax", [graph.node("GlobalAveragePool", ["input"])], axis=-1), (1, 5, 1, 1))]


def integers_with_a_zero_point():
    graph = graph_of(5, 4, 5)
    given = [graph.constant(np.ones((5, 3)), np.int8), graph.constant(np.ones(3)), graph.constant([0, 1, 0], np.int8)]
    flat = graph.node("Flatten", [graph.node("GlobalAveragePool", ["input"])])
    return graph, [(graph.node("MatMul", [flat, graph.node("DequantizeLinear", given)]), (1, 3))]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (one_plane_times_many, r"broadcasts \[1, 3, 4, 5\] and \[1, 1, 4, 5\]"),
        (one_value_per_column, r"takes constants per channel; n0 has \[5\]"),
        (vector_that_meets_columns, r"broadcasts \[1, 5, 4, 5\] and \[1, 5\]"),
        (softmax_of_one_value, "no kernel for a softmax of maps"),
        (integers_with_a_zero_point, "signed integers without zero points"),
    ],
)
def test_it_is_refused(case, words):
    from ghostdeploy.exporters.native.operators import lower
    from tests.native_networks import model_of

    with pytest.raises(RefusedError, match=words):
        lower(model_of(*case()))

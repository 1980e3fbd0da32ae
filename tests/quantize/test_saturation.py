"""INT8 weights that are right on every processor: the algebra, and the kernels that saturate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper

from ghostdeploy.deploy.quantize.saturation import (
    count_saturable,
    pairs,
    quantized,
    safe_scales,
    unsafe_channels,
)
from tests.kernels import one_layer, run_on_avx2, simulate

INTEGERS = hnp.arrays(np.int8, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.integers(-128, 127))
FLOATS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 6)),
    elements=st.floats(-1e6, 1e6, width=32).map(lambda value: value if abs(value) > 1e-30 else 0.0),
)


def worst_sums(weight):
    """Returns the extremes of all pair sums by trying all pairs and all activations that can be extreme."""
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    flat = np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1)
    sums = [
        a * flat[:, i] + b * flat[:, j]
        for i in range(flat.shape[1])
        for j in range(i)
        for a in (0, 255)
        for b in (0, 255)
    ]
    return np.min(sums, axis=0), np.max(sums, axis=0)


@given(INTEGERS)
def test_a_channel_is_unsafe_exactly_when_some_pair_overflows(weight):
    low, high = worst_sums(weight)

    np.testing.assert_array_equal(unsafe_channels(weight), (low < -32768) | (high > 32767))


@given(FLOATS)
@settings(max_examples=300)
def test_safe_scales_make_safe_weights_that_are_all_in_range(weight):
    scale = safe_scales(weight)
    whole = quantized(weight, scale)

    assert (scale > 0).all()
    assert not unsafe_channels(whole).any()
    assert (np.abs(weight - whole * scale[:, None]) <= 0.5001 * scale[:, None]).all()


@given(FLOATS)
@settings(max_examples=300)
def test_a_scale_is_that_of_the_largest_weight_or_a_smaller_one_would_be_unsafe(weight):
    scale, largest = safe_scales(weight), np.abs(weight).max(axis=1)
    used = largest > 0
    assume(used.any())
    weight, scale, largest = weight[used], scale[used], largest[used]
    smaller = np.rint(weight / (scale[:, None] * np.float32(1 - 1e-5))).clip(-128, 127).astype(np.int8)

    assert (scale >= largest / 127 * np.float32(1 - 1e-6)).all()
    assert (scale <= largest / 64 * np.float32(1 + 1e-6)).all()
    assert (unsafe_channels(smaller) | (scale <= largest / 127 * np.float32(1 + 1e-6))).all()


@given(FLOATS)
def test_seven_bits_need_no_constraint(weight):
    scale, largest = safe_scales(weight, bits=7), np.abs(weight).max(axis=1)

    assert not unsafe_channels(quantized(weight, scale, bits=7)).any()
    np.testing.assert_allclose(scale[largest > 0], largest[largest > 0] / 63, rtol=1e-6)


def test_only_the_channel_that_can_overflow_pays():
    weight = np.array([[1.0, 0.9, -0.2], [1.0, 0.001, -1.0]], np.float32)

    scale = safe_scales(weight)

    assert scale[0] > 1.4 / 127
    np.testing.assert_allclose(scale[1], 1 / 127, rtol=1e-6)


def test_depthwise_weights_are_exempt_and_grouped_ones_are_not():
    full = np.full((4, 1, 3, 3), 127, np.int8)

    assert not unsafe_channels(full, groups=4).any()
    assert unsafe_channels(full, groups=2).all()
    assert unsafe_channels(full[:1], groups=1).all()
    np.testing.assert_allclose(safe_scales(np.ones((4, 1, 3, 3), np.float32), groups=4), 1 / 127, rtol=1e-6)


def test_the_lowest_integer_counts_as_128():
    assert unsafe_channels(np.array([[-128, -1]], np.int8)).all()
    assert not unsafe_channels(np.array([[-128, 127]], np.int8)).any()
    assert pairs(np.array([[-128, 3]], np.int8))[1][0, 0] == 128


def test_a_channel_of_zeros_takes_the_finest_scale_of_its_layer():
    scale = safe_scales(np.array([[0, 0], [1, 0], [2, 0]], np.float32))

    np.testing.assert_allclose(scale, [1 / 127, 1 / 127, 2 / 127], rtol=1e-6)
    assert (safe_scales(np.zeros((2, 3), np.float32)) > 0).all()


LAYERS = {
    "1x1": ("Conv", (32, 32, 1, 1), 1),
    "3x3": ("Conv", (32, 8, 3, 3), 1),
    "grouped": ("Conv", (32, 8, 3, 3), 4),
    "two per group": ("Conv", (32, 2, 1, 1), 16),
    "multiplier": ("Conv", (32, 1, 3, 3), 16),
    "depthwise": ("Conv", (32, 1, 3, 3), 32),
    "odd depthwise": ("Conv", (10, 1, 5, 5), 10),
    "linear": ("Gemm", (16, 32), 1),
    "product": ("MatMul", (32, 16), 1),
}
DEPTHWISE = {"depthwise", "odd depthwise"}


def layer(name, value, activations=np.uint8):
    op_type, shape, groups = LAYERS[name]
    return one_layer(op_type, np.full(shape, value, np.int8), groups=groups, activations=activations)


def ones(model):
    sizes = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.ones(sizes, np.float32)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("activations", [np.uint8, np.int8])
def test_kernels_without_dot_products_saturate_where_the_algebra_says_so(engine, activations, tmp_path):
    graphs = {f"{name} {value}": layer(name, value, activations) for name in LAYERS for value in (64, 127)}
    jobs = {name: (model, ones(model)) for name, model in graphs.items()}

    outputs = run_on_avx2(engine, jobs, tmp_path)

    right = {name: simulate(*job).max() for name, job in jobs.items()}
    wrong = {name for name, array in outputs.items() if abs(array.max() / right[name] - 1) > 1e-3}
    assert wrong == {f"{name} 127" for name in LAYERS if name not in DEPTHWISE}


@pytest.mark.parametrize("name", LAYERS)
def test_channels_are_counted(name):
    model = layer(name, 127)
    channels = LAYERS[name][1][1 if name == "product" else 0]
    expected = {} if name in DEPTHWISE else {"layer": channels}

    assert count_saturable(model) == expected
    assert count_saturable(layer(name, 64)) == {}


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_are_counted_by_output_channel(groups):
    weight = np.zeros((4, 3, 2, 2), np.int8)  # (in, out/groups, kernel)
    weight[0, 1, 0, 0] = weight[1, 1, 1, 1] = 100
    weight[2, 2, 0, 0] = weight[1, 2, 0, 0] = 100
    model = one_layer("ConvTranspose", weight, groups=groups)

    assert count_saturable(model) == {"layer": 2 if groups == 1 else 1}


def test_unsigned_weights_are_counted_without_their_zero_point():
    model = layer("1x1", 127)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in (("weight", 228), ("weight_zero", 128)):
        array = numpy_helper.to_array(arrays[name])
        arrays[name].CopyFrom(numpy_helper.from_array(np.full_like(array, value, np.uint8), name))

    assert count_saturable(model) == {"layer": 32}
    arrays["weight"].CopyFrom(numpy_helper.from_array(np.full((32, 32, 1, 1), 192, np.uint8), "weight"))
    assert count_saturable(model) == {}


def test_float_layers_are_not_counted():
    model = layer("1x1", 127)
    model.graph.node[4].input[0] = "input"

    assert count_saturable(model) == {}

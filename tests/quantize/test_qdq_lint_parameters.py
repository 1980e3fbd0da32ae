"""Rules about scales, zero points, types and axes: a planted violation is named, and no other rule fires."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from ghostdeploy.deploy.quantize.qdq_lint import RULES, Violation, lint
from tests.qdq_graphs import constant, find, found, ghost_network, producer, quantizer_of, set_constant


@pytest.fixture
def ghost():
    return ghost_network()


def test_a_zero_point_that_is_not_zero_is_found(ghost):
    quantize = quantizer_of(ghost, "blocks.0.0.shortcut.2")
    set_constant(ghost, quantize.input[2], np.int8(3))

    (violation,) = lint(ghost)

    assert violation == Violation(
        rule="zero-zero-point",
        node=quantize.name,
        module="blocks.0.0.shortcut.0",
        message="zero point is 3, expected 0",
    )


def test_a_zero_point_of_a_weight_is_found(ghost):
    set_constant(ghost, "conv_head.weight_zero", np.eye(1, 32, 5, dtype=np.int8)[0])

    assert found(ghost) == [("zero-zero-point", "conv_head.weight_dq", "conv_head")]


def test_an_unsigned_activation_is_found(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    set_constant(ghost, quantize.input[2], np.uint8(0))

    assert found(ghost) == [("int8-signed", quantize.name, "blocks.9.0.conv")]
    assert lint(ghost)[0].message == "integers are uint8, expected int8"


def test_a_quantizer_without_zero_point_is_unsigned_by_the_onnx_standard(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    for node in (quantize, producer(ghost, find(ghost, "conv_head").input[0])):
        del node.input[2]

    assert found(ghost) == [("int8-signed", quantize.name, "blocks.9.0.conv")]
    quantize.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert found(ghost) == []


def test_an_activation_with_a_scale_per_channel_is_found(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    set_constant(ghost, quantize.input[1], np.full(16, 0.1, np.float32))
    set_constant(ghost, quantize.input[2], np.zeros(16, np.int8))

    assert found(ghost) == [("per-tensor-activation", quantize.name, "blocks.9.0.conv")]


@pytest.mark.parametrize("profile", RULES)
def test_a_weight_with_one_scale_is_found(ghost, profile):
    set_constant(ghost, "conv_head.weight_scale", np.float32(0.01))
    set_constant(ghost, "conv_head.weight_zero", np.int8(0))

    assert found(ghost, profile) == [("per-channel-weight-axis-0", "conv_head.weight_dq", "conv_head")]
    assert lint(ghost, profile=profile)[0].message == "weight has one scale, expected 32 on axis 0"


def test_a_weight_quantized_along_its_inputs_is_found(ghost):
    find(ghost, "classifier.weight_dq").attribute[0].i = 1
    set_constant(ghost, "classifier.weight_scale", np.full(32, 0.01, np.float32))
    set_constant(ghost, "classifier.weight_zero", np.zeros(32, np.int8))

    assert found(ghost) == [("per-channel-weight-axis-0", "classifier.weight_dq", "classifier")]


def test_the_output_axis_of_a_gemm_that_does_not_transpose_is_1(ghost):
    transposed = np.ascontiguousarray(constant(ghost, "classifier.weight").T)
    set_constant(ghost, "classifier.weight", transposed)
    next(a for a in find(ghost, "classifier").attribute if a.name == "transB").i = 0

    assert found(ghost) == [("per-channel-weight-axis-0", "classifier.weight_dq", "classifier")]
    find(ghost, "classifier.weight_dq").attribute[0].i = 1
    assert found(ghost) == []


@pytest.mark.parametrize("profile", RULES)
@pytest.mark.parametrize("scale", [0.0, -0.1, np.inf, np.nan])
def test_a_scale_that_is_no_positive_number_is_found(ghost, profile, scale):
    quantize = quantizer_of(ghost, "conv_head")
    set_constant(ghost, quantize.input[1], np.float32(scale))

    assert ("positive-finite-scale", quantize.name, "blocks.9.0.conv") in found(ghost, profile)
    assert {rule for rule, *_ in found(ghost, profile)} - {"pair-agrees"} == {"positive-finite-scale"}


def test_one_bad_scale_among_the_channels_of_a_weight_is_found(ghost):
    set_constant(ghost, "conv_head.weight_scale", np.where(np.arange(32) == 7, 0, 0.01).astype(np.float32))

    assert found(ghost) == [("positive-finite-scale", "conv_head.weight_dq", "conv_head")]


@pytest.mark.parametrize("profile", RULES)
def test_a_pair_whose_scales_differ_is_found(ghost, profile):
    restore = producer(ghost, find(ghost, "conv_head").input[0])
    restore.input[1] = "other_scale"
    set_constant(ghost, "other_scale", np.float32(0.07))

    assert found(ghost, profile) == [("pair-agrees", restore.name, "blocks.9.0.conv")]


def test_a_quantized_bias_is_found(ghost):
    node = find(ghost, "conv_head")
    set_constant(ghost, "b", np.zeros(32, np.int32))
    set_constant(ghost, "s", np.full(32, 1e-4, np.float32))
    restore = helper.make_node("DequantizeLinear", ["b", "s"], ["bias"], name="bias_dq", axis=0)
    ghost.graph.node.insert(0, restore)
    node.input[2] = "bias"

    assert found(ghost) == [("bias-not-quantized", "conv_head", "conv_head")]
    assert found(ghost, "cpu") == []


@pytest.mark.parametrize("integers", ["int8", "uint8"])
def test_weights_that_overflow_16_bits_in_pairs_are_found(integers):
    model = ghost_network(integers=integers)
    weight = constant(model, "conv_head.weight").copy()
    weight[3, :2, 0, 0] = 127, 2
    weight[5, :2, 0, 0] = -128, -1
    set_constant(model, "conv_head.weight", weight)

    (violation,) = lint(model, profile="cpu")

    assert (violation.rule, violation.node, violation.module) == ("saturation-safe", "conv_head", "conv_head")
    assert violation.message.startswith("in 2 of 32 output channels, the first being 3, ")
    assert violation.message.endswith(", expected at most 128")


def test_weights_quantized_in_the_graph_count_as_well(ghost):
    weight = np.zeros((32, 16, 1, 1), np.float32)
    weight[3, :2] = 1.27
    set_constant(ghost, "conv_head.float", weight)
    restore = find(ghost, "conv_head.weight_dq")
    quantize = helper.make_node(
        "QuantizeLinear", ["conv_head.float", *restore.input[1:]], ["conv_head.i"], name="conv_head.weight_q", axis=0
    )
    restore.input[0] = "conv_head.i"
    ghost.graph.node.insert(0, quantize)

    assert found(ghost) == []
    assert found(ghost, "cpu") == [("saturation-safe", "conv_head", "conv_head")]


def test_saturation_is_a_matter_of_output_channels_whatever_the_layout(ghost):
    weight = np.zeros((32, 10), np.int8)
    weight[0, :] = 127
    set_constant(ghost, "classifier.weight", weight)
    next(a for a in find(ghost, "classifier").attribute if a.name == "transB").i = 0
    find(ghost, "classifier.weight_dq").attribute[0].i = 1

    assert found(ghost, "cpu") == []
    weight[1, 4] = 2
    set_constant(ghost, "classifier.weight", weight)
    assert found(ghost, "cpu") == [("saturation-safe", "classifier", "classifier")]

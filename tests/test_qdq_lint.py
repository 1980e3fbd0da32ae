"""The Q/DQ linter: clean graphs pass, every rule catches what it forbids and names node and module, no other fires."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ghostdeploy.deploy.qdq_lint import RULES, Violation, lint, rule_name
from tests.qdq_graphs import (
    attention_network,
    bypass,
    constant,
    find,
    g_ghost_network,
    ghost_network,
    insert_pair,
    producer,
    quantizer_of,
    set_constant,
    to_float,
)

NETWORKS = (ghost_network, g_ghost_network, attention_network)
PLANTED = {}
"""Rule → tests that plant it."""


def plants(rule):
    """Marks a test as the proof of a rule."""

    def mark(test):
        PLANTED.setdefault(rule, []).append(test.__name__)
        return test

    return mark


def found(model, profile="tensorrt"):
    return [(violation.rule, violation.node, violation.module) for violation in lint(model, profile=profile)]


@pytest.fixture
def ghost():
    return ghost_network()


@pytest.fixture
def g_ghost():
    return g_ghost_network()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("profile", RULES)
def test_a_graph_that_obeys_the_rules_has_no_violation(network, profile):
    assert lint(network(), profile=profile) == ()


@pytest.mark.parametrize("network", NETWORKS)
def test_unsigned_activations_are_right_on_processors_and_wrong_on_gpus(network):
    model = network(integers="uint8")

    assert lint(model, profile="cpu") == ()
    assert {violation.rule for violation in lint(model)} == {"int8-signed", "zero-zero-point"}


@plants("zero-zero-point")
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


@plants("zero-zero-point")
def test_a_zero_point_of_a_weight_is_found(ghost):
    set_constant(ghost, "conv_head.weight_zero", np.eye(1, 32, 5, dtype=np.int8)[0])

    assert found(ghost) == [("zero-zero-point", "conv_head.weight_dq", "conv_head")]


@plants("int8-signed")
def test_an_unsigned_activation_is_found(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    set_constant(ghost, quantize.input[2], np.uint8(0))

    assert found(ghost) == [("int8-signed", quantize.name, "blocks.9.0.conv")]
    assert lint(ghost)[0].message == "integers are uint8, expected int8"


@plants("int8-signed")
def test_a_quantizer_without_zero_point_is_unsigned_by_the_onnx_standard(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    for node in (quantize, producer(ghost, find(ghost, "conv_head").input[0])):
        del node.input[2]

    assert found(ghost) == [("int8-signed", quantize.name, "blocks.9.0.conv")]
    quantize.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert found(ghost) == []


@plants("per-tensor-activation")
def test_an_activation_with_a_scale_per_channel_is_found(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    set_constant(ghost, quantize.input[1], np.full(16, 0.1, np.float32))
    set_constant(ghost, quantize.input[2], np.zeros(16, np.int8))

    assert found(ghost) == [("per-tensor-activation", quantize.name, "blocks.9.0.conv")]


@pytest.mark.parametrize("profile", RULES)
@plants("per-channel-weight-axis-0")
def test_a_weight_with_one_scale_is_found(ghost, profile):
    set_constant(ghost, "conv_head.weight_scale", np.float32(0.01))
    set_constant(ghost, "conv_head.weight_zero", np.int8(0))

    assert found(ghost, profile) == [("per-channel-weight-axis-0", "conv_head.weight_dq", "conv_head")]
    assert lint(ghost, profile=profile)[0].message == "weight has one scale, expected 32 on axis 0"


@plants("per-channel-weight-axis-0")
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
@plants("positive-finite-scale")
def test_a_scale_that_is_no_positive_number_is_found(ghost, profile, scale):
    quantize = quantizer_of(ghost, "conv_head")
    set_constant(ghost, quantize.input[1], np.float32(scale))

    assert ("positive-finite-scale", quantize.name, "blocks.9.0.conv") in found(ghost, profile)
    assert {rule for rule, *_ in found(ghost, profile)} - {"pair-agrees"} == {"positive-finite-scale"}


@plants("positive-finite-scale")
def test_one_bad_scale_among_the_channels_of_a_weight_is_found(ghost):
    set_constant(ghost, "conv_head.weight_scale", np.where(np.arange(32) == 7, 0, 0.01).astype(np.float32))

    assert found(ghost) == [("positive-finite-scale", "conv_head.weight_dq", "conv_head")]


@pytest.mark.parametrize("profile", RULES)
@plants("pair-agrees")
def test_a_pair_whose_scales_differ_is_found(ghost, profile):
    restore = producer(ghost, find(ghost, "conv_head").input[0])
    restore.input[1] = "other_scale"
    set_constant(ghost, "other_scale", np.float32(0.07))

    assert found(ghost, profile) == [("pair-agrees", restore.name, "blocks.9.0.conv")]


@plants("bias-not-quantized")
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
@plants("saturation-safe")
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


@plants("saturation-safe")
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


@plants("weighted-inputs-both")
def test_quantized_weights_on_float_data_are_found(ghost):
    bypass(ghost, "blocks.0.0.shortcut.2")

    assert found(ghost) == [("weighted-inputs-both", "blocks.0.0.shortcut.2", "blocks.0.0.shortcut.2")]


@plants("weighted-inputs-both")
def test_float_weights_on_quantized_data_are_found(ghost):
    to_float(ghost, "blocks.0.0.shortcut.2")
    insert_pair(ghost, "blocks.0.0.shortcut.2")

    assert found(ghost) == [("weighted-inputs-both", "blocks.0.0.shortcut.2", "blocks.0.0.shortcut.2")]


@plants("output-not-quantized")
def test_a_quantized_graph_output_is_found(ghost):
    set_constant(ghost, "scale", np.float32(0.1))
    set_constant(ghost, "zero", np.int8(0))
    node = find(ghost, "classifier")
    output, node.output[0] = node.output[0], "bare"
    ghost.graph.node.append(helper.make_node("QuantizeLinear", ["bare", "scale", "zero"], ["integers"], name="last_q"))
    ghost.graph.node.append(helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], [output], name="last"))

    assert found(ghost) == [("output-not-quantized", "last", "classifier")]
    assert found(ghost, "cpu") == []


@plants("output-not-quantized")
def test_a_layer_output_quantized_for_a_float_reader_is_found(ghost):
    relu = producer(ghost, quantizer_of(ghost, "conv_head").input[0]).input[0]
    reader = next(node.name for node in ghost.graph.node if relu in node.input)
    insert_pair(ghost, reader)

    (violation,) = lint(ghost)

    assert (violation.rule, violation.node) == ("output-not-quantized", "planted_q")
    assert violation.module == "blocks.9.0.conv"
    assert violation.message == (
        "quantizes the output of 'blocks.9.0.conv' for ReduceMean, expected an INT8 reader or no Q/DQ"
    )


@plants("shortcut-quantized")
def test_a_bare_shortcut_beside_a_ghost_concat_is_found(ghost):
    bypass(ghost, "add_identity", index=1)

    (violation,) = lint(ghost)

    assert (violation.rule, violation.node) == ("shortcut-quantized", "add_identity")
    assert violation.module == "blocks.1.0.ghost2.primary_conv.0"
    assert violation.message == "shortcut 'add_projected:0' is added without Q/DQ, expected a pair on it"


@plants("shortcut-quantized")
def test_a_residual_add_of_two_bare_convolutions_is_found(g_ghost):
    bypass(g_ghost, "add_base", index=1)

    assert found(g_ghost) == [("shortcut-quantized", "add_base", "layer3.base.conv3")]
    assert lint(g_ghost)[0].message == "neither side has Q/DQ, expected a pair on the shortcut"


@pytest.mark.parametrize("name", ["add_base", "add_inner", "add_end"])
@plants("shortcut-quantized")
def test_a_pair_on_the_convolution_side_is_found(g_ghost, name):
    layer = producer(g_ghost, find(g_ghost, name).input[0]).name
    insert_pair(g_ghost, name)

    (violation,) = lint(g_ghost)

    assert (violation.rule, violation.node, violation.module) == ("shortcut-quantized", name, layer)
    assert violation.message.startswith("convolution side ")


@plants("shortcut-quantized")
def test_a_pair_behind_a_concat_of_floats_is_found(ghost):
    concat = producer(ghost, find(ghost, "add_identity").input[0])
    for index in (0, 1):
        bypass(ghost, concat.name, index=index)
    assert found(ghost) == []
    insert_pair(ghost, "add_identity")

    assert found(ghost) == [("shortcut-quantized", "add_identity", "blocks.1.0.ghost2.primary_conv.0")]


def test_a_shortcut_that_a_float_layer_writes_may_stay_bare(g_ghost):
    to_float(g_ghost, "layer3.base.downsample.0")
    bypass(g_ghost, "add_base", index=1)

    assert found(g_ghost) == []


def test_a_shortcut_may_stay_bare_when_the_convolutions_are_float(g_ghost):
    to_float(g_ghost, "layer3.layers.0.conv3")
    bypass(g_ghost, "add_inner", index=1)

    assert found(g_ghost) == []


@pytest.mark.parametrize("profile", RULES)
@plants("concat-scales-equal")
def test_two_scales_on_a_concat_are_found(ghost, profile):
    concat = producer(ghost, quantizer_of(ghost, "blocks.0.0.conv_dw").input[0])
    quantize = quantizer_of(ghost, concat.name, index=1)
    set_constant(ghost, quantize.input[1], np.float32(0.06))

    assert found(ghost, profile) == [("concat-scales-equal", concat.name, "blocks.0.0.ghost1.primary_conv.0")]


@plants("concat-scales-equal")
def test_another_scale_behind_a_concat_is_found(g_ghost):
    quantize = quantizer_of(g_ghost, "layer3.end.conv3")
    set_constant(g_ghost, quantize.input[1], np.float32(0.06))

    assert found(g_ghost) == [
        ("concat-scales-equal", producer(g_ghost, quantize.input[0]).name, "layer3.layers.0.conv3"),
    ]


def test_a_concat_may_be_rescaled_by_the_relu_that_its_quantizer_took_over():
    model = ghost_network(integers="uint8")
    quantize = quantizer_of(model, "blocks.0.0.conv_dw")
    set_constant(model, quantize.input[1], np.float32(0.03))
    assert [rule for rule, *_ in found(model, "cpu")] == ["concat-scales-equal"]
    set_constant(model, quantize.input[2], np.uint8(0))

    assert found(model, "cpu") == []


@plants("concat-scales-equal")
def test_a_concat_of_quantized_and_bare_inputs_is_found(ghost):
    concat = producer(ghost, quantizer_of(ghost, "blocks.0.0.conv_dw").input[0])
    bypass(ghost, concat.name)

    assert found(ghost) == [("concat-scales-equal", concat.name, "blocks.0.0.ghost1.primary_conv.0")]
    assert " has no Q/DQ and another has, expected all quantized or all float" in lint(ghost)[0].message


@pytest.mark.parametrize("profile", RULES)
@pytest.mark.parametrize("half", ["primary_conv", "cheap_operation"])
@plants("ghost-halves-same-precision")
def test_a_ghost_module_of_one_float_half_is_found(ghost, half, profile):
    to_float(ghost, f"blocks.1.0.ghost1.{half}.0")

    assert found(ghost, profile) == [
        ("ghost-halves-same-precision", f"blocks.1.0.ghost1.{half}.0", f"blocks.1.0.ghost1.{half}.0"),
    ]


def test_a_ghost_module_that_is_float_as_a_whole_is_fine(ghost):
    for half in ("primary_conv", "cheap_operation"):
        to_float(ghost, f"blocks.1.0.ghost1.{half}.0")

    assert found(ghost) == []


@plants("se-gate-float")
def test_a_quantized_layer_in_a_gate_is_found(ghost):
    insert_pair(ghost, "blocks.0.0.se.conv_expand")
    quantize = insert_pair(ghost, "blocks.0.0.se.conv_expand", index=1, stem="weight")
    for node in (quantize, find(ghost, "weight_dq")):
        node.attribute.append(helper.make_attribute("axis", 0))
    set_constant(ghost, "weight_scale", np.full(16, 0.01, np.float32))
    set_constant(ghost, "weight_zero", np.zeros(16, np.int8))

    assert found(ghost) == [
        ("se-gate-float", "weight_q", "blocks.0.0.se.conv_expand"),
        ("se-gate-float", "planted_q", "blocks.0.0.se.conv_reduce"),
    ]


@plants("se-gate-float")
def test_a_quantized_gate_is_found(ghost):
    mul = next(node.name for node in ghost.graph.node if node.op_type == "Mul")
    insert_pair(ghost, mul, index=1)

    assert found(ghost) == [("se-gate-float", "planted_q", "blocks.0.0.se.conv_expand")]


@plants("attention-gate-float")
def test_a_quantized_attention_is_found():
    model = attention_network()
    insert_pair(model, "mul_attention", index=1)

    assert found(model) == [("attention-gate-float", "planted_q", "blocks.2.0.ghost1.short_conv.4")]


@plants("merge-branch-float")
@pytest.mark.parametrize(("name", "index"), [("layer3.merge.4", 0), ("add_merge", 1)])
def test_a_quantized_merge_branch_is_found(g_ghost, name, index):
    before = {"layer3.merge.4": "layer3.merge.1", "add_merge": "layer3.merge.4"}[name]
    insert_pair(g_ghost, name, index=index)

    assert found(g_ghost) == [("merge-branch-float", "planted_q", before)]


@pytest.mark.parametrize("profile", RULES)
@plants("no-dangling-qdq")
def test_a_dequantizer_without_reader_is_found(ghost, profile):
    find(ghost, "conv_head").input[0] = insert_pair(ghost, "conv_head").input[0]
    find(ghost, "planted_q").input[0] = "conv_stem:0"

    assert found(ghost, profile) == [("no-dangling-qdq", "planted_dq", "conv_stem")]


@pytest.mark.parametrize("profile", RULES)
@plants("no-dangling-qdq")
def test_a_quantizer_without_reader_is_found(ghost, profile):
    find(ghost, "conv_head").input[0] = insert_pair(ghost, "conv_head").input[0]
    find(ghost, "planted_q").input[0] = "conv_stem:0"
    ghost.graph.node.remove(find(ghost, "planted_dq"))

    assert found(ghost, profile) == [("no-dangling-qdq", "planted_q", "conv_stem")]


@plants("no-dangling-qdq")
def test_a_dequantizer_of_computed_integers_is_found(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    copy = helper.make_node("Identity", [quantize.output[0]], ["copied"], name="copy")
    restore = producer(ghost, find(ghost, "conv_head").input[0])
    restore.input[0] = "copied"
    ghost.graph.node.insert(list(ghost.graph.node).index(restore), copy)

    assert ("no-dangling-qdq", restore.name, "blocks.9.0.conv") in found(ghost)


@pytest.mark.parametrize("profile", RULES)
@plants("no-double-qdq")
def test_two_pairs_on_an_edge_are_found(ghost, profile):
    insert_pair(ghost, "conv_head")

    assert found(ghost, profile) == [("no-double-qdq", "planted_q", "blocks.9.0.conv")]


@plants("qdq-can-fuse")
def test_a_pair_between_two_float_operators_is_found(ghost):
    gated = find(ghost, producer(ghost, quantizer_of(ghost, "blocks.0.0.ghost2.primary_conv.0").input[0]).name)
    scaled = helper.make_node("Mul", [gated.output[0], "two"], ["scaled"], name="scale")
    set_constant(ghost, "two", np.float32(2))
    quantizer_of(ghost, "blocks.0.0.ghost2.primary_conv.0").input[0] = "scaled"
    ghost.graph.node.insert(list(ghost.graph.node).index(gated) + 1, scaled)
    assert found(ghost) == []
    insert_pair(ghost, "scale")

    assert found(ghost) == [("qdq-can-fuse", "planted_q", "blocks.0.0.conv_dw")]


@plants("qdq-can-fuse")
def test_a_pair_between_add_and_relu_is_found(g_ghost):
    relu = next(node.name for node in g_ghost.graph.node if "add_inner:0" in node.input)
    insert_pair(g_ghost, relu)

    assert found(g_ghost) == [("qdq-can-fuse", "planted_q", "layer3.layers.0.conv3")]


def test_every_rule_has_a_test_that_plants_it():
    assert PLANTED.keys() == {rule_name(rule) for rules in RULES.values() for rule in rules}


def test_every_rule_says_where_it_comes_from():
    assert [rule for rules in RULES.values() for rule in rules if "(" not in rule.__doc__.splitlines()[0]] == []


def test_linting_leaves_the_model_as_it_was(ghost):
    before = ghost.SerializeToString(deterministic=True)
    lint(ghost)

    assert ghost.SerializeToString(deterministic=True) == before


def test_shapes_need_not_be_in_the_file(g_ghost):
    del g_ghost.graph.value_info[:]
    insert_pair(g_ghost, "add_merge", index=1)

    assert found(g_ghost) == [("merge-branch-float", "planted_q", "layer3.merge.4")]


def test_half_precision_beside_the_pairs_is_fine(ghost):
    from ghostdeploy.exporters.tensorrt_half import to_half

    assert lint(to_half(onnx.shape_inference.infer_shapes(ghost)).model) == ()

"""Rules for Ghost networks: a planted violation is named, and no other rule fires."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from ghostdeploy.deploy.quantize.qdq_lint import RULES, lint
from tests.qdq_graphs import (
    attention_network,
    bypass,
    find,
    found,
    g_ghost_network,
    ghost_network,
    insert_pair,
    producer,
    quantizer_of,
    set_constant,
    to_float,
)


@pytest.fixture
def ghost():
    return ghost_network()


@pytest.fixture
def g_ghost():
    return g_ghost_network()


def test_a_bare_shortcut_beside_a_ghost_concat_is_found(ghost):
    bypass(ghost, "add_identity", index=1)

    (violation,) = lint(ghost)

    assert (violation.rule, violation.node) == ("shortcut-quantized", "add_identity")
    assert violation.module == "blocks.1.0.ghost2.primary_conv.0"
    assert violation.message == "shortcut 'add_projected:0' is added without Q/DQ, expected a pair on it"


def test_a_residual_add_of_two_bare_convolutions_is_found(g_ghost):
    bypass(g_ghost, "add_base", index=1)

    assert found(g_ghost) == [("shortcut-quantized", "add_base", "layer3.base.conv3")]
    assert lint(g_ghost)[0].message == "neither side has Q/DQ, expected a pair on the shortcut"


@pytest.mark.parametrize("name", ["add_base", "add_inner", "add_end"])
def test_a_pair_on_the_convolution_side_is_found(g_ghost, name):
    layer = producer(g_ghost, find(g_ghost, name).input[0]).name
    insert_pair(g_ghost, name)

    (violation,) = lint(g_ghost)

    assert (violation.rule, violation.node, violation.module) == ("shortcut-quantized", name, layer)
    assert violation.message.startswith("convolution side ")


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
def test_two_scales_on_a_concat_are_found(ghost, profile):
    concat = producer(ghost, quantizer_of(ghost, "blocks.0.0.conv_dw").input[0])
    quantize = quantizer_of(ghost, concat.name, index=1)
    set_constant(ghost, quantize.input[1], np.float32(0.06))

    assert found(ghost, profile) == [("concat-scales-equal", concat.name, "blocks.0.0.ghost1.primary_conv.0")]


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


def test_a_concat_of_quantized_and_bare_inputs_is_found(ghost):
    concat = producer(ghost, quantizer_of(ghost, "blocks.0.0.conv_dw").input[0])
    bypass(ghost, concat.name)

    assert found(ghost) == [("concat-scales-equal", concat.name, "blocks.0.0.ghost1.primary_conv.0")]
    assert " has no Q/DQ and another has, expected all quantized or all float" in lint(ghost)[0].message


@pytest.mark.parametrize("profile", RULES)
@pytest.mark.parametrize("half", ["primary_conv", "cheap_operation"])
def test_a_ghost_module_of_one_float_half_is_found(ghost, half, profile):
    to_float(ghost, f"blocks.1.0.ghost1.{half}.0")

    assert found(ghost, profile) == [
        ("ghost-halves-same-precision", f"blocks.1.0.ghost1.{half}.0", f"blocks.1.0.ghost1.{half}.0"),
    ]


def test_a_ghost_module_that_is_float_as_a_whole_is_fine(ghost):
    for half in ("primary_conv", "cheap_operation"):
        to_float(ghost, f"blocks.1.0.ghost1.{half}.0")

    assert found(ghost) == []


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


def test_a_quantized_gate_is_found(ghost):
    mul = next(node.name for node in ghost.graph.node if node.op_type == "Mul")
    insert_pair(ghost, mul, index=1)

    assert found(ghost) == [("se-gate-float", "planted_q", "blocks.0.0.se.conv_expand")]


def test_a_quantized_attention_is_found():
    model = attention_network()
    insert_pair(model, "mul_attention", index=1)

    assert found(model) == [("attention-gate-float", "planted_q", "blocks.2.0.ghost1.short_conv.4")]


@pytest.mark.parametrize(("name", "index"), [("layer3.merge.4", 0), ("add_merge", 1)])
def test_a_quantized_merge_branch_is_found(g_ghost, name, index):
    before = {"layer3.merge.4": "layer3.merge.1", "add_merge": "layer3.merge.4"}[name]
    insert_pair(g_ghost, name, index=index)

    assert found(g_ghost) == [("merge-branch-float", "planted_q", before)]

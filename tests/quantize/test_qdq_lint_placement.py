"""Rules about where Q/DQ pairs stand: a planted violation is named, and no other rule fires."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from ghostdeploy.deploy.quantize.qdq_lint import RULES, lint
from tests.qdq_graphs import (
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


def test_quantized_weights_on_float_data_are_found(ghost):
    bypass(ghost, "blocks.0.0.shortcut.2")

    assert found(ghost) == [("weighted-inputs-both", "blocks.0.0.shortcut.2", "blocks.0.0.shortcut.2")]


def test_float_weights_on_quantized_data_are_found(ghost):
    to_float(ghost, "blocks.0.0.shortcut.2")
    insert_pair(ghost, "blocks.0.0.shortcut.2")

    assert found(ghost) == [("weighted-inputs-both", "blocks.0.0.shortcut.2", "blocks.0.0.shortcut.2")]


def test_a_quantized_graph_output_is_found(ghost):
    set_constant(ghost, "scale", np.float32(0.1))
    set_constant(ghost, "zero", np.int8(0))
    node = find(ghost, "classifier")
    output, node.output[0] = node.output[0], "bare"
    ghost.graph.node.append(helper.make_node("QuantizeLinear", ["bare", "scale", "zero"], ["integers"], name="last_q"))
    ghost.graph.node.append(helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], [output], name="last"))

    assert found(ghost) == [("output-not-quantized", "last", "classifier")]
    assert found(ghost, "cpu") == []


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


@pytest.mark.parametrize("profile", RULES)
def test_a_dequantizer_without_reader_is_found(ghost, profile):
    find(ghost, "conv_head").input[0] = insert_pair(ghost, "conv_head").input[0]
    find(ghost, "planted_q").input[0] = "conv_stem:0"

    assert found(ghost, profile) == [("no-dangling-qdq", "planted_dq", "conv_stem")]


@pytest.mark.parametrize("profile", RULES)
def test_a_quantizer_without_reader_is_found(ghost, profile):
    find(ghost, "conv_head").input[0] = insert_pair(ghost, "conv_head").input[0]
    find(ghost, "planted_q").input[0] = "conv_stem:0"
    ghost.graph.node.remove(find(ghost, "planted_dq"))

    assert found(ghost, profile) == [("no-dangling-qdq", "planted_q", "conv_stem")]


def test_a_dequantizer_of_computed_integers_is_found(ghost):
    quantize = quantizer_of(ghost, "conv_head")
    copy = helper.make_node("Identity", [quantize.output[0]], ["copied"], name="copy")
    restore = producer(ghost, find(ghost, "conv_head").input[0])
    restore.input[0] = "copied"
    ghost.graph.node.insert(list(ghost.graph.node).index(restore), copy)

    assert ("no-dangling-qdq", restore.name, "blocks.9.0.conv") in found(ghost)


@pytest.mark.parametrize("profile", RULES)
def test_two_pairs_on_an_edge_are_found(ghost, profile):
    insert_pair(ghost, "conv_head")

    assert found(ghost, profile) == [("no-double-qdq", "planted_q", "blocks.9.0.conv")]


def test_a_pair_between_two_float_operators_is_found(ghost):
    gated = find(ghost, producer(ghost, quantizer_of(ghost, "blocks.0.0.ghost2.primary_conv.0").input[0]).name)
    scaled = helper.make_node("Mul", [gated.output[0], "two"], ["scaled"], name="scale")
    set_constant(ghost, "two", np.float32(2))
    quantizer_of(ghost, "blocks.0.0.ghost2.primary_conv.0").input[0] = "scaled"
    ghost.graph.node.insert(list(ghost.graph.node).index(gated) + 1, scaled)
    assert found(ghost) == []
    insert_pair(ghost, "scale")

    assert found(ghost) == [("qdq-can-fuse", "planted_q", "blocks.0.0.conv_dw")]


def test_a_pair_between_add_and_relu_is_found(g_ghost):
    relu = next(node.name for node in g_ghost.graph.node if "add_inner:0" in node.input)
    insert_pair(g_ghost, relu)

    assert found(g_ghost) == [("qdq-can-fuse", "planted_q", "layer3.layers.0.conv3")]

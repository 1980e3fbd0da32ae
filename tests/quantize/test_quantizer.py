"""The parts of the quantizer on a small network with the shapes of a Ghost network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.deploy.prove.fidelity import ratio_db
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize import writer
from ghostdeploy.deploy.quantize.blocks import roles, units, vector_branches
from ghostdeploy.deploy.quantize.correct_bias import correct_bias, with_biases
from ghostdeploy.deploy.quantize.layer_errors import layer_errors
from ghostdeploy.deploy.quantize.qdq_lint import lint, profile_of
from ghostdeploy.deploy.quantize.saturation import count_saturable
from ghostdeploy.deploy.quantize.shared_scales import shared_ranges
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from tests.recipes import FUSED, RECIPES

DEPTHWISE = {"ghost1.cheap_operation.0", "ghost2.cheap_operation.0"}


def ranges_of(floating, recipe, batches):
    chosen = writer.plan(floating, recipe)
    histograms = rg.collect(floating, chosen.activations, lambda: batches)
    return shared_ranges(chosen.shared_scales, histograms, "mse", symmetric=recipe.symmetric)


def quantized(floating, recipe, batches, **options):
    ranges = ranges_of(floating, recipe, batches)
    return writer.write(floating, recipe, writer.plan(floating, recipe, **options), ranges)


def test_layers_are_named_and_have_their_roles(floating):
    graph = OnnxGraph(floating)

    assert roles(graph) == {
        "stem": "convolution",
        "ghost1.primary_conv.0": "primary",
        "ghost1.cheap_operation.0": "cheap",
        "ghost2.primary_conv.0": "primary",
        "ghost2.cheap_operation.0": "cheap",
        "reduce": "pointwise",
        "expand": "pointwise",
        "head": "linear",
    }
    assert units(graph)["ghost1.cheap_operation.0"] == units(graph)["ghost1.primary_conv.0"] == "ghost1"


def test_gate_joins_stay_float_and_the_classifier_does_not(floating):
    branches = vector_branches(OnnxGraph(floating))

    assert {"reduce", "expand"} <= branches
    assert "head" not in branches


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_quantizes_all_its_layers_and_keeps_the_logits(floating, batches, name):
    recipe = RECIPES[name]
    graph = quantized(floating, recipe, batches)
    wanted = GraphRunner(floating).logits(batches)

    assert ratio_db(GraphRunner(graph).logits(batches), wanted) > 25
    layers = {node.name: node for node in graph.graph.node if node.op_type in {"Conv", "Gemm"}}
    produced = {output: node.op_type for node in graph.graph.node for output in node.output}
    floats = {name for name, node in layers.items() if produced.get(node.input[0]) != "DequantizeLinear"}
    assert floats == {*(() if recipe.int8_gates else ("reduce", "expand")), *(() if recipe.int8_groups else DEPTHWISE)}
    rounded = any(node.op_type == "DequantizeLinear" for node in graph.graph.node if "logits" in node.output)
    assert rounded == (not recipe.bare_outputs)


@pytest.mark.parametrize("name", ["onnxruntime", "executorch", "native"])
def test_a_layer_is_rounded_behind_its_relu_and_nowhere_before_in_gates_too(floating, batches, name):
    graph = quantized(floating, RECIPES[name], batches)
    producer = {output: node.op_type for node in graph.graph.node for output in node.output}

    assert "Relu" in {node.op_type for node in floating.graph.node}
    assert "DequantizeLinear" not in {producer[node.input[0]] for node in graph.graph.node if node.op_type == "Relu"}


@pytest.mark.parametrize("name", ["onnxruntime", "executorch", "native"])
def test_biases_are_integers_where_the_engine_rounds_them(floating, batches, name):
    graph = quantized(floating, RECIPES[name], batches)
    kinds = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    producer = {output: node for node in graph.graph.node for output in node.output}
    layers = [node for node in graph.graph.node if node.op_type in {"Conv", "Gemm"} and len(node.input) > 2]

    assert layers
    assert {kinds[producer[node.input[2]].input[0]] for node in layers} == {onnx.TensorProto.INT32}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_cpu_recipes_cannot_saturate(floating, batches, name):
    assert sum(count_saturable(quantized(floating, RECIPES[name], batches)).values()) == 0


def test_the_tensorrt_recipe_passes_the_linter(floating, batches):
    assert lint(quantized(floating, RECIPES["tensorrt"], batches), profile="gpu") == ()


@pytest.mark.parametrize("unit", ["stem", "ghost1", "ghost2", "head"])
@pytest.mark.parametrize("name", FUSED)
def test_a_unit_in_float_leaves_a_graph_that_passes_the_linter(floating, batches, name, unit):
    of = units(OnnxGraph(floating))
    layers = frozenset(layer for layer, its in of.items() if its == unit)
    graph = quantized(floating, RECIPES[name], batches, float_layers=layers)

    assert lint(graph, profile=profile_of(RECIPES[name])) == ()


def test_all_tensors_of_a_concat_share_a_scale(floating, batches):
    graph = quantized(floating, RECIPES["tensorrt"], batches)
    producer = {output: node for node in graph.graph.node for output in node.output}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "Concat":
            scales = {float(values[producer[name].input[1]]) for name in node.input}
            assert len(scales) == 1


def test_layers_left_in_float_have_no_quantized_weights(floating, batches):
    graph = quantized(floating, RECIPES["openvino"], batches, float_layers=frozenset({"stem", "head"}))
    constants = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    weights = {n.name: constants.get(n.input[1]) for n in graph.graph.node if n.op_type in {"Conv", "Gemm"}}

    assert weights["stem"] == weights["head"] == onnx.TensorProto.FLOAT
    assert weights["ghost1.primary_conv.0"] is None  # behind a DequantizeLinear


def test_a_layers_own_error_is_what_it_gives_alone(floating, batches):
    """Held against a graph with every other layer in float."""
    recipe = RECIPES["openvino"]
    names = [node.name for node in OnnxGraph(floating).layers()]
    errors = layer_errors(floating, quantized(floating, recipe, batches), batches)
    alone = quantized(floating, recipe, batches, float_layers=frozenset(set(names) - {"head"}))
    difference = GraphRunner(alone).logits(batches) - GraphRunner(floating).logits(batches)

    assert errors["head"].images == sum(map(len, batches))
    assert errors["head"].error == pytest.approx(float(np.square(difference, dtype=np.float64).sum()), rel=0.01)
    assert errors["head"].shift / sum(map(len, batches)) == pytest.approx(difference.mean(axis=0), abs=1e-4)


def test_bias_correction_removes_the_mean_error_of_a_layer(floating, batches):
    """Held against graphs with every other layer in float."""
    recipe = RECIPES["openvino"]
    others = frozenset(node.name for node in OnnxGraph(floating).layers()) - {"head"}
    errors = layer_errors(floating, quantized(floating, recipe, batches), batches)
    wanted = GraphRunner(floating).logits(batches).mean(axis=0)
    shift = [
        np.abs(
            GraphRunner(quantized(model, recipe, batches, float_layers=others)).logits(batches).mean(axis=0) - wanted
        )
        for model in (floating, correct_bias(floating, {"head": errors["head"]}))
    ]

    assert shift[1].max() <= 0.05 * shift[0].max()


@pytest.mark.parametrize("name", RECIPES)
def test_other_biases_in_a_written_graph_are_those_that_the_quantizer_would_write(floating, batches, name):
    recipe = RECIPES[name]
    written = quantized(floating, recipe, batches)
    corrected = correct_bias(floating, layer_errors(floating, written, batches))

    changed = with_biases(written, corrected)

    wanted = writer.write(corrected, recipe, writer.plan(floating, recipe), ranges_of(floating, recipe, batches))
    values = [{one.name: numpy_helper.to_array(one) for one in g.graph.initializer} for g in (changed, wanted)]
    assert list(changed.graph.node) == list(wanted.graph.node)
    assert values[0].keys() == values[1].keys()
    assert all(np.array_equal(array, values[1][name]) for name, array in values[0].items())


def test_a_bias_that_needs_wider_weight_scales_is_left_to_the_quantizer(floating, batches):
    written = quantized(floating, RECIPES["onnxruntime"], batches)
    large = onnx.ModelProto.FromString(floating.SerializeToString())
    constants = OnnxGraph(large).constants
    name = OnnxGraph(large).layers()[0].input[2]
    constants[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constants[name]) + np.float32(1e6), name))

    assert with_biases(written, large) is None

"""Layers in float beside layers in INT8: they compute what they did, and the others stay INT8 in the engine."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.convert.graph.precision import read_precision
from ghostdeploy.deploy.prove.fidelity import ratio_db
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize import writer
from ghostdeploy.deploy.quantize.float_layers import with_float
from ghostdeploy.deploy.quantize.qdq_lint import lint, profile_of
from ghostdeploy.deploy.quantize.shared_scales import shared_ranges
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from tests.recipes import RECIPES

CHANNELS, SIZE = 8, 12
MIXED = (("a", "Relu"), ("b", None), ("joined", "Concat"), ("c", "Relu"), ("d", None))
"""A pyramid joins a map behind a ReLU with one that has none."""
SUMMED = (("a", None), ("b", None), ("joined", "Add"), ("c", "Relu"), ("d", "Relu"))
"""A ReLU behind a sum, read by two layers."""


def graph_of(parts):
    """x → a, b → joined → c → d, and joined → e; the output is d + e."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def layer(name, source, channels, relu):
        weight = rng.normal(0, channels**-0.5, (CHANNELS, channels, 1, 1)).astype(np.float32)
        bias = rng.normal(0, 0.3, CHANNELS).astype(np.float32)
        constants.extend(numpy_helper.from_array(one, f"{name}.{part}") for part, one in (("w", weight), ("b", bias)))
        nodes.append(helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [f"{name}.conv"], name=name))
        if relu:
            nodes.append(helper.make_node("Relu", [f"{name}.conv"], [f"{name}.relu"], name=f"{name}.act"))
        return f"{name}.relu" if relu else f"{name}.conv"

    kinds = dict(parts)
    a, b = (layer(name, "x", CHANNELS, kinds[name]) for name in "ab")
    if kinds["joined"] == "Concat":
        nodes.append(helper.make_node("Concat", [a, b], ["joined"], name="join", axis=1))
        joined, channels = "joined", 2 * CHANNELS
    else:
        nodes.append(helper.make_node("Add", [a, b], ["sum"], name="join"))
        nodes.append(helper.make_node("Relu", ["sum"], ["joined"], name="join.act"))
        joined, channels = "joined", CHANNELS
    c = layer("c", joined, channels, kinds["c"])
    d = layer("d", c, CHANNELS, kinds["d"])
    e = layer("e", joined, channels, relu=True)
    nodes.append(helper.make_node("Concat", [d, e], ["both"], name="last", axis=1))
    out = layer("f", "both", 2 * CHANNELS, relu=False)
    shape = ["N", CHANNELS, SIZE, SIZE]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(0, 1, (32, CHANNELS, SIZE, SIZE)).astype(np.float32)


def written(model, recipe, images, float_layers=frozenset()):
    chosen = writer.plan(model, recipe, float_layers=float_layers)
    whole = writer.plan(model, recipe)
    histograms = rg.collect(model, whole.activations, lambda: [images])
    ranges = shared_ranges(
        whole.shared_scales, histograms, "mse", symmetric=recipe.symmetric, rectified=whole.rectified
    )
    return writer.write(model, recipe, chosen, ranges)


def sketch(model, recipe, images, layers):
    kept = writer.plan(model, recipe, float_layers=layers).activations
    rectified = writer.plan(model, recipe).rectified
    return with_float(written(model, recipe, images), model, layers, recipe, rectified, kept)


@pytest.mark.parametrize("layers", ["", "a", "b", "c", "e", "ce", "abc", "cde"])
@pytest.mark.parametrize("parts", [MIXED, SUMMED], ids=["mixed", "summed"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_quantized_graph_computes_the_network_whatever_is_float(name, parts, layers, images):
    model, recipe = graph_of(parts), RECIPES[name]
    wanted = GraphRunner(model)(images)[0]

    quantized = written(model, recipe, images, frozenset(layers))
    sketched = sketch(model, recipe, images, frozenset(layers))

    for one in (quantized, sketched):
        assert ratio_db(GraphRunner(one)(images)[0], wanted) > 30
    if not recipe.rounds_in_layers:
        assert lint(quantized, profile=profile_of(recipe)) == ()


@pytest.mark.parametrize("layers", ["", "a", "f", "bcdef", "acdef", "abdef", "abcef", "abcdf", "abcde", "abcdef"])
@pytest.mark.parametrize("parts", [MIXED, SUMMED], ids=["mixed", "summed"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_sketch_computes_nearly_what_the_graph_written_anew_does(name, parts, layers, images):
    model, recipe = graph_of(parts), RECIPES[name]

    one, other = (make(model, recipe, images, frozenset(layers)) for make in (written, sketch))

    assert ratio_db(GraphRunner(one)(images)[0], GraphRunner(other)(images)[0]) > (100 if len(layers) == 6 else 30)


@pytest.mark.parametrize("layers", ["", "a", "b", "c", "d", "e", "ce", "de", "df", "abc", "cde"])
@pytest.mark.parametrize("parts", [MIXED, SUMMED], ids=["mixed", "summed"])
def test_every_other_layer_stays_int8_in_the_engine(parts, layers, images, tmp_path):
    model = graph_of(parts)
    onnx.save(written(model, RECIPES["onnxruntime"], images, frozenset(layers)), tmp_path / "model.onnx")

    found = read_precision(tmp_path / "model.onnx", executed=True)

    assert len(OnnxGraph(model).layers()) == 6
    assert (found.int8_layers, found.float_layers) == (6 - len(layers), len(layers))

"""Transposed convolutions are quantized where the engine has integers for them; the others are listed as floats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy import targets
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.deploy.quantize.positive import is_positive
from ghostdeploy.deploy.quantize.writer import plan

ACTIVATIONS = {
    "relu": ([("Relu", {})], True),
    "relu6": ([("Clip", {"least": 0.0})], True),
    "clip": ([("Clip", {"least": -1.0})], False),
    "silu": ([("HardSwish", {})], False),
    "pooled relu": ([("Relu", {}), ("MaxPool", {"kernel_shape": [1, 1]})], True),
    "nothing": ([], False),
}


def network(operators):
    """Convolution, operators, transposed convolution, convolution."""
    weights = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    constants = [numpy_helper.from_array(weights, name) for name in "abc"]
    nodes, last = [helper.make_node("Conv", ["x", "a"], ["first"], "first")], "first"
    for number, (kind, options) in enumerate(operators):
        inputs = [last]
        if "least" in options:
            constants.append(numpy_helper.from_array(np.float32(options["least"]), "least"))
            inputs, options = [last, "least"], {}
        nodes.append(helper.make_node(kind, inputs, [last := f"t{number}"], f"n{number}", **options))
    nodes.append(helper.make_node("ConvTranspose", [last, "b"], ["up"], "up"))
    nodes.append(helper.make_node("Conv", ["up", "c"], ["y"], "last"))
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8])] for name in "xy"]
    graph = helper.make_graph(nodes, "g", *ports, constants)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_transposed_convolution_is_quantized_where_its_engine_can(name):
    operators, positive = ACTIVATIONS[name]
    model = network(operators)
    graph = OnnxGraph(model)
    floating = {target: plan(model, targets.find(target).recipe).float_nodes for target in ("onnx", "openvino")}

    assert is_positive(graph, graph.producer["up"].input[0]) == positive
    assert "up" in floating["onnx"]
    assert ("up" in floating["openvino"]) != positive
    assert not {"first", "last"} & (floating["onnx"] | floating["openvino"])

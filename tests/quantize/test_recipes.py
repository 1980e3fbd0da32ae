"""What a recipe says of layers in groups, and of engines that round the data of a layer inside it."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.deploy.quantize import writer
from tests.recipes import RECIPES

LAYERS = ("Conv",)
RECIPE = msgspec.structs.replace(RECIPES["openvino"], op_types=LAYERS, bare_outputs=LAYERS)


def residual():
    """image → conv → ReLU → depthwise → sum with the ReLU."""
    rng = np.random.default_rng(0)
    weights = {"first": rng.normal(size=(4, 3, 1, 1)), "depthwise": rng.normal(size=(4, 1, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], name="depthwise", group=4),
        helper.make_node("Add", ["b", "c"], ["sum"], name="sum"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, 8, 8)) for n, c in (("input", 3), ("sum", 4))]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], constants)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def rounded_readers(recipe):
    """Returns the names of the nodes that read rounded data in the Q/DQ graph."""
    model = residual()
    chosen = writer.plan(model, recipe)
    graph = writer.write(model, recipe, chosen, dict.fromkeys(chosen.activations, (-4.0, 4.0))).graph
    made = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {node.name for node in graph.node if made & set(node.input)}


def test_layers_in_groups_may_stay_float():
    recipe = msgspec.structs.replace(RECIPE, int8_groups=False)

    assert writer.plan(residual(), RECIPE).float_nodes == {"sum"}  # no layer reads it
    assert writer.plan(residual(), recipe).float_nodes == {"depthwise", "sum"}


def test_where_layers_round_their_own_data_nothing_else_reads_rounded_data():
    assert rounded_readers(RECIPE) == {"first", "depthwise", "sum"}
    assert rounded_readers(msgspec.structs.replace(RECIPE, rounds_in_layers=True)) == {"first", "depthwise"}


def gated():
    """image → conv → x · hardsigmoid(conv(mean x)) → flat → Gemm."""
    rng = np.random.default_rng(0)
    shapes = {"first": (4, 3, 1, 1), "gate": (4, 4, 1, 1), "last": (5, 256)}
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["x"], name="first"),
        helper.make_node("GlobalAveragePool", ["x"], ["mean"], name="pool"),
        helper.make_node("Conv", ["mean", "gate"], ["g"], name="gate"),
        helper.make_node("HardSigmoid", ["g"], ["s"], name="sigmoid"),
        helper.make_node("Mul", ["x", "s"], ["y"], name="scaled"),
        helper.make_node("Flatten", ["y"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "last"], ["logits"], name="last", transB=1),
    ]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, 8, 8)),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 5)),
    ]
    constants = [numpy_helper.from_array(rng.normal(size=size).astype(np.float32), n) for n, size in shapes.items()]
    graph = helper.make_graph(nodes, "gated", ends[:1], ends[1:], constants)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


EVERYTHING = msgspec.structs.replace(
    RECIPES["openvino"],
    name="everything",
    op_types=("Conv", "Gemm", "GlobalAveragePool", "HardSigmoid", "Mul", "Flatten"),
    bare_outputs=(),
    saturation_safe=False,
)


def test_gates_stay_float_unless_the_engine_has_none():
    assert writer.plan(gated(), EVERYTHING).float_nodes >= {"sigmoid", "pool"}

    recipe = msgspec.structs.replace(EVERYTHING, quantize_gates=True)
    chosen = writer.plan(gated(), recipe)

    assert chosen.float_nodes == frozenset()
    assert {"s", "y"} <= set(chosen.activations)


def test_weights_of_an_operator_may_have_one_scale():
    recipe = msgspec.structs.replace(EVERYTHING, quantize_gates=True, one_scale=("Gemm",))
    model = gated()
    chosen = writer.plan(model, recipe)

    graph = writer.write(model, recipe, chosen, dict.fromkeys(chosen.activations, (-4.0, 4.0))).graph

    shapes = {one.name: list(one.dims) for one in graph.initializer}
    assert shapes["last_scale"] in ([], [1])
    assert shapes["first_scale"] == [4]

"""Operators behind the last layers stay float, and an expectation over bins is one of them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy import targets
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.convert.graph.shapes import infer_shapes
from ghostdeploy.deploy.quantize import writer
from ghostdeploy.deploy.quantize.heads import behind_layers, is_expectation

CPU = [row for row in targets.ROWS if row.recipe is not None and row.recipe.op_types]


def weights(name, *shape):
    return numpy_helper.from_array(np.random.default_rng(0).normal(size=shape).astype(np.float32), name)


def detector():
    """A body, two heads, boxes as the mean over four bins, both joined in one tensor (N, 8, 5 + 4)."""
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["body"], name="body", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["body"], ["relu"], name="relu"),
        helper.make_node("Conv", ["relu", "w1"], ["logits"], name="scores"),
        helper.make_node("Conv", ["relu", "w2"], ["bins"], name="bins"),
        helper.make_node("Reshape", ["bins", "four"], ["grouped"], name="grouped"),
        helper.make_node("Softmax", ["grouped"], ["shares"], name="shares", axis=1),
        helper.make_node("Conv", ["shares", "w3"], ["mean"], name="mean"),
        helper.make_node("Reshape", ["mean", "flat"], ["boxes"], name="boxes"),
        helper.make_node("Sigmoid", ["logits"], ["odds"], name="odds"),
        helper.make_node("Reshape", ["odds", "flat"], ["rows"], name="rows"),
        helper.make_node("Concat", ["rows", "boxes"], ["joined"], name="joined", axis=1),
    ]
    constants = [
        *(weights("w0", 8, 3, 3, 3), weights("w1", 5, 8, 1, 1), weights("w2", 16, 8, 1, 1)),
        numpy_helper.from_array(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1), "w3"),
        numpy_helper.from_array(np.array([1, 4, 4, 16], np.int64), "four"),
        numpy_helper.from_array(np.array([1, -1, 16], np.int64), "flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 4, 4))],
        [helper.make_tensor_value_info("joined", TensorProto.FLOAT, (1, 9, 16))],
        constants,
    )
    return infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def test_what_no_layer_reads_is_behind_them():
    assert behind_layers(OnnxGraph(detector())) == {*("grouped", "shares", "mean", "boxes", "odds", "rows", "joined")}


def test_a_mean_over_bins_is_no_layer():
    graph = OnnxGraph(detector())
    assert [node.name for node in graph.layers() if is_expectation(graph, node)] == ["mean"]


def test_a_convolution_of_one_channel_that_reads_a_map_is_a_layer():
    model = detector()
    next(node for node in model.graph.node if node.name == "shares").op_type = "Sigmoid"
    graph = OnnxGraph(model)
    assert not any(is_expectation(graph, node) for node in graph.layers())


@pytest.mark.parametrize("row", CPU, ids=[row.name for row in CPU])
def test_no_scale_joins_boxes_and_scores(row):
    plan = writer.plan(detector(), row.recipe)

    assert not {"joined", "boxes", "rows", "mean"} & {node.name for node in plan.nodes}
    assert plan.shared_scales == []
    assert {"body", "scores", "bins"} <= {node.name for node in plan.nodes}

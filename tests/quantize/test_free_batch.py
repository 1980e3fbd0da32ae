"""A graph of a fixed batch is quantized with a free one where that changes nothing, and written as it came."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ghostdeploy.deploy.quantize import free_batch as module
from ghostdeploy.deploy.quantize.free_batch import free_batch
from ghostdeploy.deploy.quantize.simulate import GraphRunner

LAYERS = """
<ir_version: 8, opset_import: ["" : 18]>
layers (float[{batch}, 3, 8, 8] image) => (float[{batch}, 5] logits)
<int64[2] rows = {{{batch}, 256}}>
{{
    [conv] features = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (image, weight)
    {between}
    [view] flat = Reshape <allowzero = 1> (mixed, rows)
    [head] logits = Gemm <transB = 1> (flat, matrix)
}}
"""
ALONE = "[act] mixed = Relu (features)"
TOGETHER = """
    axes = Constant <value_ints = [0, 2, 3]> ()
    [mean] centre = ReduceMean <keepdims = 1> (features, axes)
    [shift] mixed = Sub (features, centre)
"""


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)


def graph(between=ALONE, *, batch=1):
    model = onnx.parser.parse_model(LAYERS.format(batch=batch, between=between))
    rng = np.random.default_rng(1)
    for name, shape in (("weight", (16, 3, 3, 3)), ("matrix", (5, 256))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


@pytest.mark.parametrize("batch", [1, 2])
def test_images_of_many_batches_are_run_at_once_and_give_the_same(images, batch):
    model = graph(batch=batch)

    freed = free_batch(model, images, together=16)

    assert freed.batch == batch
    assert freed.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    np.testing.assert_allclose(GraphRunner(freed.model)(images)[0], GraphRunner(model)(images)[0], rtol=1e-5, atol=1e-5)


def test_masks_and_classes_are_compared_as_well(images):
    model = graph()
    for kind, name in (("Greater", "mask"), ("ArgMax", "best")):
        inputs = ["features", "weight_mean"] if kind == "Greater" else ["features"]
        model.graph.node.append(
            onnx.helper.make_node(kind, inputs, [name], name=name, **({"axis": 1} if kind == "ArgMax" else {}))
        )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "weight_mean"))
    for name, element, channels in (("mask", onnx.TensorProto.BOOL, 16), ("best", onnx.TensorProto.INT64, 1)):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, (1, channels, 4, 4)))
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)

    freed = free_batch(model, images, together=16)

    assert freed.batch == 1
    for one, other in zip(GraphRunner(freed.model)(images), GraphRunner(model)(images), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_graph_that_gets_its_batch_back_is_what_it_was(images):
    model = graph()
    freed = free_batch(model, images, together=16)
    changed = copy.deepcopy(freed.model)

    freed.restore(changed)

    assert changed.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_whose_images_meet_keeps_its_batch(images, batch):
    model = graph(TOGETHER, batch=batch)

    freed = free_batch(model, images, together=16)

    assert freed.batch is None
    assert freed.model is model


def test_a_graph_with_a_free_batch_stays_as_it_is(images):
    freed = free_batch(graph(), images, together=16).model

    assert free_batch(freed, images, together=16).model is freed


def test_a_graph_whose_activations_are_large_stays_as_it_is(images, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)

    assert free_batch(graph(), images, together=16).batch is None

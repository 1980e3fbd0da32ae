"""FP16 written into the graph: types everywhere, float32 kept where half precision cannot hold the numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ghostdeploy.convert.graph.shapes import element_types
from ghostdeploy.exporters.tensorrt.half import fits, to_half
from ghostdeploy.exporters.tensorrt.layers import written_layers
from tests.bundles import Tiny, network
from tests.tensorrt_kits import named, quantized


def test_weights_are_half_and_inputs_and_outputs_keep_their_types():
    model = to_half(named(network(Tiny(side=True)))).model

    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT16}
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    assert [node.op_type for node in model.graph.node].count("Cast") == 4  # two inputs, two outputs
    assert {layer.precision for layer in written_layers(model).values()} == {"fp16"}


def test_the_half_graph_computes_the_same_within_its_eleven_bits():
    tiny = Tiny(side=True)
    model = named(network(tiny))
    inputs = tiny.example(4)

    exact = ReferenceEvaluator(model).run(None, inputs)
    half = ReferenceEvaluator(to_half(model).model).run(None, inputs)

    for got, want in zip(half, exact, strict=True):
        assert got.dtype == np.float32
        assert np.abs(got - want).max() < 4e-3 * np.abs(want).max()


def test_the_given_graph_is_left_alone():
    model = named(network(Tiny()))
    before = model.SerializeToString(deterministic=True)

    to_half(model)

    assert model.SerializeToString(deterministic=True) == before


def test_normalisation_of_pixels_stays_in_float32():
    model = to_half(named(network(Tiny(layout="nhwc")))).model
    types = element_types(model)

    assert types["input"] == TensorProto.UINT8
    assert [types[name] for name in ("floats", "planes", "scaled", "normal")] == [TensorProto.FLOAT] * 4
    assert [types[name] for name in ("a", "b", "e")] == [TensorProto.FLOAT16] * 3


@pytest.mark.parametrize(("value", "holds"), [(1e5, False), (1e-6, False), (60000.0, True), (1e-3, True)])
def test_weights_that_half_precision_cannot_hold_are_told_apart(value, holds):
    weight = np.random.default_rng(0).normal(0, 1, (4, 8)).astype(np.float32)
    weight[2] = value * np.sign(weight[2])

    assert fits(weight) is holds


def test_a_channel_of_zeros_fits():
    assert fits(np.zeros((3, 4), np.float32))


@pytest.mark.parametrize("factor", [1e-7, 1e6])
def test_a_layer_with_such_weights_keeps_float32_between_two_casts(factor):
    model = named(network(Tiny()))
    tensor = next(t for t in model.graph.initializer if t.name == "depthwise")
    weights = numpy_helper.to_array(tensor).copy()
    weights[3] *= factor
    tensor.CopyFrom(numpy_helper.from_array(weights, "depthwise"))

    halved = to_half(model)

    assert halved.kept == ("conv_2",)
    assert {name: layer.precision for name, layer in written_layers(halved.model).items()} == {
        "conv_0": "fp16",
        "conv_2": "fp32",
        "gemm_6": "fp16",
    }
    if factor < 1:  # larger weights make outputs that half precision cannot hold either
        assert np.isfinite(ReferenceEvaluator(halved.model).run(None, Tiny().example(2))[0]).all()


def test_a_quantized_graph_gets_half_scales_in_opset_19():
    model = quantized(network(Tiny()))
    halved = to_half(model)
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    scales = {node.input[1] for node in halved.model.graph.node if node.op_type in quantizers}

    assert halved.refused is None
    assert halved.model.opset_import[0].version == 19
    kinds = Counter(node.op_type for node in halved.model.graph.node)
    assert kinds["QuantizeLinear"] == Counter(n.op_type for n in model.graph.node)["QuantizeLinear"]
    assert {t.data_type for t in halved.model.graph.initializer if t.name in scales} <= {TensorProto.FLOAT16}
    assert {layer.precision for layer in written_layers(halved.model).values()} == {"int8"}


@pytest.mark.parametrize("largest", [1e-3, 1e5, 1e7])
def test_a_scale_outside_half_precision_leaves_the_whole_graph_in_float32_and_says_so(largest):
    model = quantized(network(Tiny()), largest=largest)

    halved = to_half(model)

    assert "outside the normal range of half precision" in halved.refused
    assert halved.model.opset_import[0].version == 18
    assert TensorProto.FLOAT16 not in element_types(halved.model).values()
    assert {layer.precision for layer in written_layers(halved.model).values()} == {"int8"}


def test_work_is_counted_for_one_image():
    layers = written_layers(named(network(Tiny(size=16))))

    assert {name: layer.macs for name, layer in layers.items()} == {
        "conv_0": 8 * 8 * 8 * 27,
        "conv_2": 8 * 8 * 8 * 9,
        "gemm_6": 80,
    }


def test_a_layer_without_a_name_of_its_own_is_refused():
    model = named(network(Tiny()))
    model.graph.node[2].name = "conv_0"

    with pytest.raises(ValueError, match="has no name of its own"):
        written_layers(model)


def test_a_resize_keeps_its_float32_scales():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Resize", ["a", "", "s"], ["y"], "resize", mode="nearest"),
    ]
    value = helper.make_tensor_value_info
    constants = [
        numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s"),
    ]
    graph = helper.make_graph(
        nodes,
        "resize",
        [value("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [value("y", TensorProto.FLOAT, [1, 2, 8, 8])],
        constants,
    )

    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)).model

    assert {t.name: t.data_type for t in half.graph.initializer} == {
        "w_half": TensorProto.FLOAT16,
        "s": TensorProto.FLOAT,
    }

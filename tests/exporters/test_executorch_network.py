"""ONNX graphs as PyTorch modules: each operator against the reference evaluator, the form of their weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ghostdeploy.convert.base import RefusedError
from ghostdeploy.exporters.executorch.graph import write_hard_sigmoids
from ghostdeploy.exporters.executorch.network import OnnxNetwork
from tests.onnx_graphs import graph, node

SHAPE = (2, 8, 9, 7)
OPSET = 21
"""The reference evaluator has Q/DQ operators from 19 on."""
INTEGERS = {"axes": np.array([2, 3]), "axis": np.array([1]), "zero": np.array(0), "places": np.array([3, -1, 0])}
NUMBERS = {"half": np.array(0.5), "two": np.array(2.0), "scale": np.array(0.02, np.float32)}


def operator(kind, extra="", /, outputs="y", **settings):
    """Returns nodes and constants of one operator that reads x and what `extra` names."""
    return [node(kind, f"x {extra}", outputs, **settings)]


CASES = {
    "conv": (operator("Conv", "w b", pads=[1, 1, 1, 1], strides=[2, 1]), {"w": (6, 8, 3, 3), "b": (6,)}),
    "conv, sides": (operator("Conv", "w", pads=[0, 1, 2, 0], group=8), {"w": (8, 1, 3, 3)}),
    "conv, same": (operator("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2]), {"w": (4, 8, 3, 3)}),
    "deconvolution": (
        operator("ConvTranspose", "w b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0]),
        {"w": (8, 3, 3, 3), "b": (3,)},
    ),
    "gemm": ([node("Flatten", "x", "f"), node("Gemm", "f w b", "y", transB=1)], {"w": (5, 504), "b": (5,)}),
    "gemm, as ONNX has it": ([node("Flatten", "x", "f"), node("Gemm", "f w b", "y")], {"w": (504, 5), "b": (5,)}),
    "matmul": (operator("MatMul", "w"), {"w": (7, 5)}),
    "matmul of maps": (operator("MatMul", "w"), {"w": (2, 8, 7, 5)}),
    "matmul of data": ([node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")], {}),
    "largest": (operator("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    "largest, sides": (operator("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1]), {}),
    "largest, ceil": (operator("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), {}),
    "mean": (operator("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), {}),
    "mean, padded": (operator("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), {}),
    "of all": ([node("GlobalAveragePool", "x", "a"), node("GlobalMaxPool", "x", "b"), node("Sum", "a b", "y")], {}),
    "resize": (operator("Resize", "none none sizes", mode="linear"), {}),
    "reduced": (operator("ReduceMean", "axes", keepdims=0), {}),
    "reduced, kept": (operator("ReduceMax", "axis"), {}),
    "sum of all": (operator("ReduceSum", "axes", keepdims=1), {}),
    "norm": (operator("ReduceL2", "axis", keepdims=1), {}),
    "split": ([node("Split", "x", "a b c", axis=1, num_outputs=3), node("Concat", "c a b", "y", axis=1)], {}),
    "slice": (operator("Slice", "one seven axis step"), {}),
    "slice backwards": (operator("Slice", "minus less axis back"), {}),
    "gather": (operator("Gather", "places", axis=1), {}),
    "gather one": (operator("Gather", "zero", axis=2), {}),
    "pad": (operator("Pad", "pads half"), {}),
    "pad by reflection": (operator("Pad", "pads", mode="reflect"), {}),
    "expand": ([node("ReduceMean", "x axes", "m"), node("Expand", "m wide", "y")], {}),
    "unsqueeze": ([node("Unsqueeze", "x axis", "u"), node("Squeeze", "u axis", "y")], {}),
    "reshape": (operator("Reshape", "kept"), {}),
    "to maps": (operator("DepthToSpace", blocksize=2), {}),
    "to maps, columns": (operator("DepthToSpace", blocksize=2, mode="CRD"), {}),
    "clip": (operator("Clip", "none half"), {}),
    "hard sigmoid": (operator("HardSigmoid", alpha=1 / 6, beta=0.5), {}),
    "hard sigmoid of ONNX": (operator("HardSigmoid"), {}),
    "hard swish": (operator("HardSwish"), {}),
    "softmax": (operator("Softmax", axis=1), {}),
    "logs": ([node("LogSoftmax", "x", "y", axis=-1)], {}),
    "layer norm": (operator("LayerNormalization", "w b", axis=-1), {"w": (7,), "b": (7,)}),
    "instance norm": (operator("InstanceNormalization", "w b"), {"w": (8,), "b": (8,)}),
    "slopes": (operator("PRelu", "w"), {"w": (8, 1, 1)}),
    "leaky": (operator("LeakyRelu", alpha=0.2), {}),
    "elu": (operator("Elu"), {}),
    "gelu": (operator("Gelu"), {}),
    "powers": ([node("Abs", "x", "a"), node("Pow", "a two", "y")], {}),
    "choice": ([node("Greater", "x half", "c"), node("Where", "c x half", "y")], {}),
    "extremes": ([node("Max", "x half", "a"), node("Min", "a two", "y")], {}),
    "classes": (operator("ArgMax", axis=1, keepdims=0), {}),
    "best": ([node("TopK", "x count", "y places_of", axis=1)], {}),
    "type": ([node("Cast", "x", "i", to=TensorProto.INT32), node("Cast", "i", "y", to=TensorProto.FLOAT)], {}),
    "rounded": ([node("QuantizeLinear", "x scale point", "q"), node("DequantizeLinear", "q scale point", "y")], {}),
}
EXTRA = {
    **INTEGERS,
    **NUMBERS,
    "sizes": np.array([2, 8, 18, 13]),
    "one": np.array([1]),
    "seven": np.array([7]),
    "step": np.array([2]),
    "minus": np.array([-1]),
    "less": np.array([-9]),
    "back": np.array([-1]),
    "pads": np.array([0, 0, 1, 2, 0, 0, 2, 0]),
    "wide": np.array([2, 8, 4, 3]),
    "kept": np.array([0, -1, 7]),
    "count": np.array([3]),
    "point": np.array(7, np.uint8),
}


def made(nodes, arrays, outputs=("y",)):
    """Returns the model of nodes, in which the name `none` is an input that is left out."""
    for one in nodes:
        one.input[:] = ["" if name == "none" else name for name in one.input]
    read = {name for one in nodes for name in one.input}
    constants = {**arrays, **{name: value for name, value in EXTRA.items() if name in read}}
    found = graph(nodes, shape=SHAPE, outputs=outputs, **constants)
    found.opset_import[0].version = OPSET
    return onnx.shape_inference.infer_shapes(found, data_prop=True)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_the_reference_gives(name):
    model = made(*CASES[name])
    write_hard_sigmoids(model)
    data = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)

    with torch.no_grad():
        found = OnnxNetwork(model)(torch.from_numpy(data))

    for wanted, got in zip(ReferenceEvaluator(model).run(None, {"x": data}), found, strict=True):
        assert got.shape == wanted.shape
        assert got.numpy().dtype == wanted.dtype
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_every_weight_is_a_constant_of_the_recorded_graph():
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w b", "g"), node("MatMul", "g v", "y")]
    model = made(nodes, {"w": (504, 5), "b": (5,), "v": (5, 3)})

    recorded = torch.export.export(OnnxNetwork(model).eval(), (torch.zeros(SHAPE),))

    layers = [one for one in recorded.graph.nodes if one.target is torch.ops.aten.linear.default]
    assert len(layers) == 2
    assert all(argument.op == "placeholder" for one in layers for argument in one.args[1:])


def test_all_operators_without_a_form_are_named():
    model = made([node("Relu", "x", "r"), node("NonZero", "r", "n"), node("Cast", "n", "y", to=TensorProto.FLOAT)], {})
    model.graph.node.append(helper.make_node("Det", ["x"], ["d"], name="volume"))

    with pytest.raises(RefusedError, match="NonZero at n, Det at volume"):
        OnnxNetwork(model)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (operator("Resize", "none none sizes", mode="nearest", coordinate_transformation_mode="half_pixel"), "Resize"),
        (operator("ArgMax", axis=1, select_last_index=1), "takes the last of equal values"),
        (operator("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]), "padding that differs"),
    ],
)
def test_a_form_that_pytorch_lacks_is_refused_by_the_operator(nodes, said):
    model = made(nodes, {})

    with pytest.raises(RefusedError, match=said):
        OnnxNetwork(model)(torch.zeros(SHAPE))


def test_sizes_that_depend_on_the_data_are_refused():
    nodes = [node("Shape", "x", "s"), node("Reshape", "x s", "y")]

    with pytest.raises(RefusedError, match="Shape at s"):
        OnnxNetwork(made(nodes, {}))

"""INT8 for ncnn: the integers of a Q/DQ graph leave it, so that pnnx gets a float graph, and move to ncnn's layers.

    x → Q(s) → DQ(s) → layer ← DQ(scales) ← q_W      becomes      x → layer ← W = q_W·scales

ncnn rounds the data of each layer itself, with the one scale in its file, and returns floats, as the Q/DQ pairs before
layers specify. An ncnn scale is a factor, so 1/s. Layers in groups stay float by the recipe: on AVX2
ncnn 1.0.20261020 gave 12 right bits in depthwise ones, and wrong numbers in others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ghostdeploy.convert.graph.index import OnnxGraph, attribute, output_axis
from ghostdeploy.exporters.ncnn.weights import Arrays
from ghostdeploy.runtimes.ncnn.costs import INT8, WEIGHTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.runtimes.ncnn.param import Layer

_LEVELS = 127
_INTEGER_KINDS = ("Convolution", "InnerProduct")


@dataclass(frozen=True, slots=True)
class Integers:
    """The quantization of one layer."""

    scales: NDArray[np.float32]
    """Of the weights, one per output feature."""
    data_scale: float

    def applied(self, layer: Layer, arrays: Arrays) -> tuple[Layer, Arrays]:
        """Returns the layer with INT8 weights and its scales; as it was where ncnn has no integers for its kind."""
        assert arrays.weights is not None  # it was found by them
        if layer.kind not in _INTEGER_KINDS:
            return layer, arrays
        rows = arrays.weights.reshape(len(self.scales), -1)
        codes = np.rint(rows / self.scales[:, None]).clip(-_LEVELS, _LEVELS).astype(np.int8)
        factors = np.asarray(1 / self.scales, np.float32), np.asarray([1 / self.data_scale], np.float32)
        assert codes.size == layer.number(WEIGHTS[layer.kind])  # the scales are those of these weights
        params = dict(sorted((layer.params | {INT8: "1"}).items()))
        return layer._replace(params=params), Arrays(codes.reshape(-1), (*arrays.plain, *factors))


def integers_of(model: onnx.ModelProto) -> dict[str, Integers]:
    """Takes the Q/DQ pairs out of a graph, in place, and returns the scales of its quantized layers by name."""
    graph = OnnxGraph(model)
    unquantized: dict[str, str] = {}
    scale_of: dict[str, NDArray[Any]] = {}
    floats = []
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear":
            continue
        scale = numpy_helper.to_array(graph.constants[node.input[1]])
        scale_of[node.output[0]] = scale
        stored = graph.constants.get(node.input[0])
        if stored is None:
            unquantized[node.output[0]] = graph.producer[node.input[0]].input[0]
        else:
            floats.append(_restored(numpy_helper.to_array(stored), scale, attribute(node, "axis", 1), node.output[0]))
    found = {}
    constants = {tensor.name for tensor in floats}
    for node in graph.nodes:
        if len(node.input) > 1 and node.input[0] in unquantized and node.input[1] in constants:
            weights = next(tensor for tensor in floats if tensor.name == node.input[1])
            features = _features(node, weights)
            scales = np.broadcast_to(scale_of[node.input[1]].astype(np.float32), (features,))
            found[node.name] = Integers(scales, float(scale_of[node.input[0]]))
    _rewire(model.graph, unquantized, floats)
    return found


def _features(node: onnx.NodeProto, weights: onnx.TensorProto) -> int:
    return int(weights.dims[output_axis(node)])


def _restored(codes: NDArray[Any], scale: NDArray[Any], axis: int, name: str) -> onnx.TensorProto:
    shape = [1] * codes.ndim
    if scale.ndim:
        shape[axis] = -1
    values = codes.astype(np.float32) * scale.reshape(shape).astype(np.float32)
    return numpy_helper.from_array(values.astype(np.float32), name)


def _rewire(graph: onnx.GraphProto, unquantized: dict[str, str], floats: list[onnx.TensorProto]) -> None:
    """Leaves the Q/DQ nodes out, and the integers that nobody reads any more."""
    kept = [node for node in graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    given = {unquantized[value.name]: value.name for value in graph.output if value.name in unquantized}
    for node in kept:  # an output after a pair is now what the pair read
        node.input[:] = [given.get(unquantized.get(name, name), unquantized.get(name, name)) for name in node.input]
        node.output[:] = [given.get(name, name) for name in node.output]
    ordered = onnx.GraphProto(node=kept).node
    del graph.node[:]
    graph.node.extend(ordered)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    constants = [tensor for tensor in (*graph.initializer, *floats) if tensor.name in read]
    held = onnx.GraphProto(initializer=constants).initializer
    del graph.initializer[:]
    graph.initializer.extend(held)

"""The quantized half of `network`: Q/DQ pairs, and layers' integer weights with scales that XNNPACK takes.

XNNPACK multiplies integers in a layer whose data and weights are, and whose result is rounded by the one operator that
reads it. Weights of any other layer are restored to floats here, once: it would restore them at every call.

With input scale s, weight scales w_c and output scale t the codes of a channel are z + round(r_c · (Σ W·x + b_c)) with
r_c = s·w_c/t, and a program with r_c ≥ 256 does not load. Channels that never fire have such weights, after
BatchNorm's division by a variance near 0. Where r_c > 255, one step of the sum moves the output across all its codes,
so w'_c = 255·t/s with the same integers gives the same codes, if the bias keeps its b_c: it shrinks by w'_c/w_c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

# Defines torch.ops.quantized_decomposed.
from torch.ao.quantization.fx import _decomposed  # noqa: F401

from ghostdeploy.convert.graph.index import LAYERS, attribute, output_axis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.convert.graph.index import OnnxGraph
    from ghostdeploy.exporters.executorch.call import Call

LARGEST_RATIO = 255.0
_ENDS = -128, 127
_WEIGHT_ENDS = -127, 127
_SIGN = 128
_FUSED = ("Relu",)


@dataclass(frozen=True, slots=True)
class IntegerLayer:
    """Integers of one layer as PyTorch has them."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int
    """Of the output channels."""
    shrink: NDArray[np.float32]
    """Factors of the bias."""


def dequantized(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, axis: int) -> torch.Tensor:
    """Returns weights in the form that XNNPACK recognises."""
    pair = torch.ops.quantized_decomposed.dequantize_per_channel.default
    found: torch.Tensor = pair(codes, scales, zeros, axis, *_WEIGHT_ENDS, torch.int8)
    return found


def quantize(call: Call) -> torch.Tensor:
    """`QuantizeLinear` of data, with one scale."""
    return _pair(torch.ops.quantized_decomposed.quantize_per_tensor.default, call)


def dequantize(call: Call) -> torch.Tensor:
    """`DequantizeLinear` of data, with one scale."""
    return _pair(torch.ops.quantized_decomposed.dequantize_per_tensor.default, call)


def _pair(operator: Any, call: Call) -> torch.Tensor:
    scale, zero = call.value(1), call.value(2)
    if scale is None or scale.size != 1 or (zero is not None and zero.dtype not in (np.uint8, np.int8)):
        raise call.refused("has more than one scale, or other than 8 bits")
    shift = 0 if zero is None else int(zero.reshape(())) - (_SIGN if zero.dtype == np.uint8 else 0)
    found: torch.Tensor = operator(call.data, float(scale.reshape(())), shift, *_ENDS, torch.int8)
    return found


OPERATORS = {"QuantizeLinear": quantize, "DequantizeLinear": dequantize}


def restored(graph: OnnxGraph, static: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Returns the floats of all constants that a graph dequantizes, by the name of the result."""
    return {
        node.output[0]: _floats(static[node.input[0]], static[node.input[1]], attribute(node, "axis", 1))
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in static
    }


def integer_layers(graph: OnnxGraph, static: Mapping[str, NDArray[Any]]) -> dict[str, IntegerLayer]:
    """Returns the layers in which XNNPACK can multiply integers, by their output."""
    return dict(_integer_layers(graph, static))


def _integer_layers(graph: OnnxGraph, static: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, IntegerLayer]]:
    for node in graph.nodes:
        if node.op_type not in LAYERS or not takes_integers(node, graph):
            continue
        data, weights = (graph.producer.get(name) for name in node.input[:2])
        result = _rounded_by(node, graph)
        if not (_is_restored(data) and _is_restored(weights)) or result is None:
            continue
        assert data is not None
        assert weights is not None
        if weights.input[0] not in static or data.input[0] in static:
            continue
        axis = output_axis(node)
        codes = static[weights.input[0]]
        scales = np.broadcast_to(static[weights.input[1]].astype(np.float64).reshape(-1), (codes.shape[axis],))
        limit = LARGEST_RATIO * float(static[result.input[1]]) / float(static[data.input[1]])
        capped = np.minimum(scales, limit)
        if is_turned(node):
            codes, axis = codes.T, 1 - axis
        yield (
            node.output[0],
            IntegerLayer(
                codes=np.ascontiguousarray(codes),
                scales=capped.astype(np.float32),
                axis=axis,
                shrink=(capped / scales).astype(np.float32),
            ),
        )


def takes_integers(node: onnx.NodeProto, graph: OnnxGraph) -> bool:
    """Returns whether XNNPACK has integers for a layer: not for transposed convolutions in groups."""
    return node.op_type != "ConvTranspose" or attribute(node, "group", 1) == 1


def is_turned(node: onnx.NodeProto) -> bool:
    """Returns whether a layer needs its weights transposed: `linear` reads (features, values)."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))


def _is_restored(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _rounded_by(node: onnx.NodeProto, graph: OnnxGraph) -> onnx.NodeProto | None:
    """Returns the operator that rounds a layer's result, where it is the only reader."""
    readers = _all_readers(node.output[0], graph)
    if len(readers) == 1 and readers[0].op_type in _FUSED:
        readers = _all_readers(readers[0].output[0], graph)
    return readers[0] if len(readers) == 1 and readers[0].op_type == "QuantizeLinear" else None


def _all_readers(name: str, graph: OnnxGraph) -> list[onnx.NodeProto]:
    return [] if name in graph.outputs else graph.readers(name)


def _floats(codes: NDArray[Any], scale: NDArray[Any], axis: int) -> NDArray[np.float32]:
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[axis] = -1
    return np.asarray(codes.astype(np.float64) * scale.astype(np.float64).reshape(shape), np.float32)

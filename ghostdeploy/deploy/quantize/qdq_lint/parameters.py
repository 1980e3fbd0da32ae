"""Rules about numbers: scales, zero points, integer types, axes.

    x̂ = s (q − z),   q = clamp(round(x/s) + z, q_min, q_max)

TensorRT needs z = 0 and INT8 everywhere, one s per activation, one s per output channel of a weight. A processor
without dot-product instructions needs weights whose products with 8-bit activations fit in 16 bits, two at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.convert.graph.index import attribute
from ghostdeploy.deploy.quantize import saturation
from ghostdeploy.deploy.quantize.qdq_lint.graph import BIAS, DQ, Q

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.deploy.quantize.qdq_lint.graph import QdqGraph

    Finding = tuple[onnx.NodeProto, str]

_SCALE, _ZERO = 1, 2


def zero_zero_point(graph: QdqGraph) -> Iterator[Finding]:
    """Zero points are constant zeros (NvInfer.h, IQuantizeLayer: symmetric quantization only)."""
    for node in _quantizers(graph):
        if len(node.input) <= _ZERO or not node.input[_ZERO]:
            continue
        zero = graph.constant(node.input[_ZERO])
        if zero is None:
            yield node, f"zero point {node.input[_ZERO]!r} is computed, expected a constant 0"
        elif zero.any():
            yield node, f"zero point is {_first(zero[zero != 0])}, expected 0"


def int8_signed(graph: QdqGraph) -> Iterator[Finding]:
    """Activations and weights are INT8 (TensorRT, quantized types: no UINT8 quantization in a layer)."""
    for node in _quantizers(graph):
        found = _integer_type(graph, node)
        if found != "int8":
            yield node, f"integers are {found}, expected int8"


def per_tensor_activation(graph: QdqGraph) -> Iterator[Finding]:
    """An activation has one scale (TensorRT, quantized types: per-channel scales are for weights)."""
    for node, _ in graph.pairs():
        scale = graph.constant(node.input[_SCALE])
        if scale is not None and scale.size > 1:
            yield node, f"activation {node.input[0]!r} has {scale.size} scales, expected one"


def per_channel_weight_axis_0(graph: QdqGraph) -> Iterator[Finding]:
    """A weight has one scale per output channel: axis 0 of a Conv and of a Gemm with transB (TensorRT, ModelOpt)."""
    for layer in graph.layers():
        node = graph.dequantizer(layer.input[1])
        weight = graph.constant(graph.source(layer.input[1]))
        scale = graph.constant(node.input[_SCALE]) if node is not None else None
        if node is None or weight is None or scale is None:
            continue
        wanted = output_axis(graph, layer, weight.ndim)
        channels = weight.shape[wanted]
        axis = attribute(node, "axis", 1) % weight.ndim
        if scale.size == 1 and channels > 1:
            yield node, f"weight has one scale, expected {channels} on axis {wanted}"
        elif scale.size > 1 and (axis != wanted or scale.shape != (channels,)):
            found = f"scales of shape {scale.shape} on axis {axis}"
            yield node, f"weight has {found}, expected {channels} on axis {wanted}"


def positive_finite_scale(graph: QdqGraph) -> Iterator[Finding]:
    """Scales are constants, positive and finite (NvInfer.h, IQuantizeLayer)."""
    for node in _quantizers(graph, biases=True):
        scale = graph.constant(node.input[_SCALE])
        if scale is None:
            yield node, f"scale {node.input[_SCALE]!r} is computed, expected a constant"
        elif not (np.isfinite(scale) & (scale > 0)).all():
            bad = scale[~(np.isfinite(scale) & (scale > 0))]
            yield node, f"scale is {_first(bad)}, expected a positive finite number"


def pair_agrees(graph: QdqGraph) -> Iterator[Finding]:
    """Q and DQ of a pair have the same scale and zero point (ONNX: a pair that does not is not a quantization)."""
    for quantize, dequantizers in graph.pairs():
        for node in dequantizers:
            if not same_parameters(graph, quantize, node):
                yield node, f"scale or zero point differs from that of {quantize.name!r}, expected the same"


def bias_not_quantized(graph: QdqGraph) -> Iterator[Finding]:
    """Biases stay float: the builder folds them into the kernel (TensorRT, Q/DQ placement; ModelOpt)."""
    for layer in graph.layers():
        if len(layer.input) > BIAS and graph.dequantizer(layer.input[BIAS]) is not None:
            yield layer, f"bias {graph.source(layer.input[BIAS])!r} is quantized, expected float"


def saturation_safe(graph: QdqGraph) -> Iterator[Finding]:
    """No two products of a channel leave 16 bits (vpmaddubsw; see `ghostdeploy.deploy.quantize.saturation`)."""
    for layer in graph.layers():
        weight = integer_weight(graph, layer)
        if weight is None or graph.dequantizer(layer.input[0]) is None:
            continue
        unsafe = np.flatnonzero(saturation.unsafe_channels(weight, groups=attribute(layer, "group", 1)))
        if unsafe.size:
            worst = max(int(side[unsafe].sum(axis=1, dtype=np.int64).max()) for side in saturation.pairs(weight))
            yield (
                layer,
                f"in {unsafe.size} of {len(weight)} output channels, the first being {unsafe[0]}, two weights of one "
                f"sign add up to as much as {worst}, expected at most {saturation.PAIR_LIMIT}",
            )


def same_parameters(graph: QdqGraph, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Returns whether two quantizers have equal scales and zero points."""
    for index in (_SCALE, _ZERO):
        names = [node.input[index] if len(node.input) > index else "" for node in (first, second)]
        if names[0] == names[1]:
            continue
        a, b = (graph.constant(name) if name else np.zeros((), np.int8) for name in names)
        if a is None or b is None or not np.array_equal(a.reshape(-1), b.reshape(-1)):
            return False
    return True


def begins_at_zero(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    """Recognises a quantizer whose smallest integer stands for 0, as after a ReLU."""
    zero = graph.constant(node.input[_ZERO]) if len(node.input) > _ZERO else None
    return zero is not None and zero.dtype.kind in "iu" and bool((zero == np.iinfo(zero.dtype).min).all())


def output_axis(graph: QdqGraph, layer: onnx.NodeProto, rank: int) -> int:
    """Returns the axis of the output channels in the weight of a layer."""
    if layer.op_type == "Gemm":
        return 0 if attribute(layer, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}[layer.op_type]


def integer_weight(graph: QdqGraph, layer: onnx.NodeProto) -> NDArray[np.int8] | None:
    """Returns the quantized weight (out, …) of a layer, None for a float one."""
    node = graph.dequantizer(layer.input[1])
    if node is None:
        return None
    stored = graph.constant(node.input[0])
    if stored is None:
        stored = _rounded(graph, graph.producer[node.input[0]])
    return np.moveaxis(stored, output_axis(graph, layer, stored.ndim), 0).astype(np.int8)


def _rounded(graph: QdqGraph, quantize: onnx.NodeProto) -> NDArray[Any]:
    """Returns the integers that a QuantizeLinear makes of a constant, zero point 0."""
    weight, scale = graph.constant(graph.source(quantize.output[0])), graph.constant(quantize.input[_SCALE])
    if weight is None or scale is None:
        raise ValueError(f"{quantize.name!r} quantizes a value that is not constant")
    if scale.size > 1:
        axis = attribute(quantize, "axis", 1) % weight.ndim
        scale = scale.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
    return np.asarray(np.clip(np.rint(weight / scale), -128, 127))


def _quantizers(graph: QdqGraph, *, biases: bool = False) -> Iterator[onnx.NodeProto]:
    """Yields every Q, and every DQ that has no Q before it; those of biases only when asked."""
    for node in graph.nodes:
        producer = graph.producer.get(node.input[0]) if node.op_type == DQ else None
        alone = node.op_type == DQ and (producer is None or producer.op_type != Q)
        if node.op_type == Q or (alone and (biases or not _is_for_bias(graph, node))):
            yield node


def _is_for_bias(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    readers = graph.uses[node.output[0]]
    return bool(readers) and all(index == BIAS and graph.is_layer(reader) for reader, index in readers)


def _integer_type(graph: QdqGraph, node: onnx.NodeProto) -> str:
    """Returns the type of the integers: ONNX takes that of the zero point, else `output_dtype`, else UINT8."""
    from onnx import helper

    named = [node.input[_ZERO]] if len(node.input) > _ZERO and node.input[_ZERO] else []
    for name in ([node.input[0]] if node.op_type == DQ else []) + named:
        if (value := graph.constant(name)) is not None:
            return str(value.dtype)
    dtype = attribute(node, "output_dtype", 0) if node.op_type == Q else 0
    return str(helper.tensor_dtype_to_np_dtype(dtype)) if dtype else "uint8"


def _first(values: NDArray[Any]) -> str:
    return f"{values.reshape(-1)[0]:g}"

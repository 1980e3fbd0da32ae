"""Which INT8 weights are exact on every CPU, and the smallest scales that make them so.

x86 processors without dot-product instructions (VNNI, AMX) multiply by `pmaddubsw`: two unsigned 8-bit activations by
two signed 8-bit weights, the two products added in 16 bits *with saturation*:

    −32768 ≤ a₁ q₁ + a₂ q₂ ≤ 32767,   0 ≤ a ≤ 255

The sum is exact for all activations when it is so for a ∈ {0, 255}. Which weights of an output channel meet in a pair
depends on kernel and layout, so the bound applies to the worst pair, the two largest q⁺ and the two most negative q⁻:

    255 (q⁺₁ + q⁺₂) ≤ 32767   and   255 (q⁻₁ + q⁻₂) ≥ −32768    ⇔    sums within ±128

Signed activations change nothing: kernels run them as a + 128. A channel with |q| ≤ 64 (7 bits) is always safe, a
single weight too (255 · 127 = 32385). Depthwise convolutions (one input channel per group, one output channel each)
are exempt: their kernels widen before they multiply. Measured with all weights 127 and all activations 255 on AVX2,
SSE4.1 and AVX-512 without VNNI in OpenVINO 2026.4.1 (oneDNN), on AVX2 in ONNX Runtime 1.32: dense and grouped
convolutions and Gemm give 0.51 of the right sum, grouped ones with a channel multiplier 0.56, depthwise ones 1.00.

Scales: q = round(w/s), s ≥ max|w| / 127. For w₁ ≥ w₂ ≥ 0, round(w₁/s) + round(w₂/s) ≤ 128 holds when for some k

    w₁/s ≤ k + ½  and  w₂/s ≤ 128 − k + ½    ⇔    s ≥ max( w₁/(k + ½), w₂/(128 − k + ½) )

so the smallest safe scale is the minimum over k of that maximum, taken for the positive and the negative pair. Ties may
round up and float32 division may err by its last bit, hence rounded weights are checked and the scale nudged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Scales = NDArray[np.float32]

PAIR_LIMIT = 32767 // 255
"""Largest sum of two weights of one sign, 128."""
_NUDGE = 2.0**-22
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_IR_MOVES = ("Concat", "Convert", "MaxPool", "Multiply", "Reshape", "Squeeze", "Subtract", "Transpose", "Unsqueeze")


def unsafe_channels(weight: NDArray[Any], *, groups: int = 1) -> NDArray[np.bool_]:
    """Returns which output channels can overflow 16-bit sums.

    Args:
        weight: Integers (out, in/groups, …), output channels first.
        groups: Of the convolution; depthwise ones are exempt.

    Returns:
        (out,)
    """
    if is_depthwise(weight.shape, groups):
        return np.zeros(len(weight), bool)
    positive, negative = pairs(weight)
    sums = np.maximum(positive.astype(np.int64).sum(axis=1), negative.astype(np.int64).sum(axis=1))
    return np.asarray(sums > PAIR_LIMIT)


def is_depthwise(shape: tuple[int, ...], groups: int) -> bool:
    """Recognises a convolution with weights (out, in/groups, …) whose kernels never add two products in 16 bits."""
    return groups > 1 and shape[0] == groups and shape[1] == 1


def pairs(weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the magnitudes of the two largest positive and the two most negative weights of each channel.

    Args:
        weight: (out, …) of any signed type.

    Returns:
        Two arrays (out, 2), largest first, zero where there are fewer.
    """
    flat = weight.reshape(len(weight), -1)
    wide = flat.astype(np.int16) if flat.dtype == np.int8 else flat  # −(−128) has no room in 8 bits
    padded = np.concatenate([wide, np.zeros((len(wide), 2), wide.dtype)], axis=1)
    top = [np.sort(np.partition(side, -2, axis=1)[:, -2:], axis=1)[:, ::-1] for side in (padded, -padded)]
    return top[0], top[1]


def safe_scales(weight: NDArray[Any], *, bits: int = 8, groups: int = 1) -> Scales:
    """Returns the smallest symmetric scale of each output channel whose rounded weights are safe.

    Args:
        weight: Float weights (out, in/groups, …).
        bits: Of the weights; with 7 or fewer no channel needs more than its largest weight requires.
        groups: Of the convolution.

    Returns:
        Positive float32 (out,). A channel of zeros takes the smallest scale of its layer: the scale of its bias is a
        product with this one, and must not be coarse.
    """
    levels = 2 ** (bits - 1) - 1
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.abs(flat).max(axis=1)
    scale = largest / levels
    if not is_depthwise(weight.shape, groups):
        for first, second in (side.T for side in pairs(flat)):
            scale = np.maximum(scale, pair_scale(first, second))
    scale = np.where(largest > 0, scale, scale[largest > 0].min() if largest.any() else 1 / levels)
    return _checked(flat, np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32), levels, weight.shape, groups)


def pair_scale(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the smallest scale at which the two magnitudes, rounded, add up to at most `PAIR_LIMIT`; all (out,)."""
    k = np.arange(PAIR_LIMIT + 1)
    needed = np.maximum(first[:, None] / (k + 0.5), second[:, None] / (PAIR_LIMIT - k + 0.5))
    return np.asarray(needed.min(axis=1))


def quantized(weight: NDArray[Any], scale: Scales, *, bits: int = 8) -> NDArray[np.int8]:
    """Returns weights (out, …) rounded to integers (half to even), as quantizers do it in float32."""
    levels = 2 ** (bits - 1) - 1
    shape = (-1,) + (1,) * (weight.ndim - 1)
    steps: NDArray[np.float32] = np.rint(weight.astype(np.float32) / scale.reshape(shape))
    return np.clip(steps, -levels, levels).astype(np.int8)


def _checked(flat: NDArray[np.float64], scale: Scales, levels: int, shape: tuple[int, ...], groups: int) -> Scales:
    """Nudges scales whose rounded weights are unsafe in float32 or float64; 7 bits are safe whatever happens."""
    for attempt in range(1, 9):
        unsafe = np.zeros(len(flat), bool)
        for kind in (np.float32, np.float64):
            whole = np.clip(np.rint(flat.astype(kind) / scale[:, None].astype(kind)), -levels, levels)
            unsafe |= unsafe_channels(whole.astype(np.int8).reshape(shape), groups=groups)
        if not unsafe.any():
            return scale
        scale = np.where(unsafe, scale * np.float32(1 + attempt * _NUDGE), scale).astype(np.float32)
    seven_bits = (np.abs(flat).max(axis=1) / (PAIR_LIMIT // 2)).astype(np.float32)
    return np.where(unsafe, np.maximum(scale, seven_bits), scale).astype(np.float32)


def count_saturable(model: onnx.ModelProto) -> dict[str, int]:
    """Counts the unsafe output channels of each layer that a Q/DQ graph has in INT8.

    Args:
        model: Weights are constants that feed `DequantizeLinear`.

    Returns:
        Node name and count, layers with unsafe channels only.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    dequantized = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED or not {*node.input[:2]} <= dequantized.keys():
            continue
        quantizer = dequantized[node.input[1]]
        if quantizer.input[0] not in constants:
            continue
        stored = numpy_helper.to_array(constants[quantizer.input[0]])
        zero = constants.get(quantizer.input[2]) if len(quantizer.input) > 2 else None
        signed = _signed(stored, 0 if zero is None else numpy_helper.to_array(zero))
        attributes = {a.name: a.i for a in node.attribute}
        weight, groups = _outputs_first(node.op_type, signed, attributes)
        count = int(unsafe_channels(weight, groups=groups).sum())
        if count:
            found[node.name] = count
    return found


def _signed(stored: NDArray[Any], zero: Any) -> NDArray[Any]:
    """Returns int16 weights as kernels see them: unsigned ones have their zero point taken off."""
    return stored.astype(np.int16) - np.asarray(zero, np.int16).max() if stored.dtype == np.uint8 else stored


def _outputs_first(kind: str, weight: NDArray[Any], attributes: dict[str, int]) -> tuple[NDArray[Any], int]:
    """Returns weights of an ONNX layer with output channels first, and its groups."""
    groups = attributes.get("group", 1)
    if kind == "ConvTranspose":
        return _transposed(weight.reshape(groups, -1, *weight.shape[1:]))
    if kind == "MatMul" or (kind == "Gemm" and not attributes.get("transB", 0)):
        return np.moveaxis(weight, -1, 0), 1
    return weight, groups


def _transposed(weight: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Turns (groups, in/groups, out/groups, …) into (out, in/groups, …)."""
    swapped = np.swapaxes(weight, 1, 2)
    return swapped.reshape(-1, *swapped.shape[2:]), weight.shape[0]

"""ONNX operators that look at windows of a map: convolutions, products with weights, pools, resizes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ghostdeploy.exporters.executorch.call import Call

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_LARGEST = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN: dict[int, Callable[..., Any]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def convolve(call: Call) -> torch.Tensor:
    """`Conv`."""
    weights, rank = call.given[1], call.data.ndim - 2
    strides, dilations = _per_axis(call, "strides", rank), _per_axis(call, "dilations", rank)
    data, padding = _padded(call, weights.shape[2:], strides, dilations, 0.0)
    groups = call.attributes.get("group", 1)
    return _CONVOLUTIONS[rank](data, weights, call.optional(2), strides, padding, dilations, groups)


def convolve_transposed(call: Call) -> torch.Tensor:
    """`ConvTranspose`."""
    rank = call.data.ndim - 2
    before, behind = _pads(call, rank)
    if before != behind or "output_shape" in call.attributes or call.text("auto_pad", "NOTSET") != "NOTSET":
        raise call.refused("has a padding that differs between the sides")
    found: torch.Tensor = _TRANSPOSED[rank](
        call.data,
        call.given[1],
        call.optional(2),
        _per_axis(call, "strides", rank),
        before,
        _per_axis(call, "output_padding", rank, 0),
        call.attributes.get("group", 1),
        _per_axis(call, "dilations", rank),
    )
    return found


def multiply_general(call: Call) -> torch.Tensor:
    """`Gemm`; constant weights come as (features, values)."""
    factors = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    if factors != (1, 1):
        raise call.refused("has factors")
    data: torch.Tensor = call.data.T if call.attributes.get("transA", 0) else call.data
    second, bias = call.given[1], call.optional(2)
    if call.static[1] is None:
        product = data @ (second.T if call.attributes.get("transB", 0) else second)
    elif bias is None or bias.ndim != 1 or bias.numel() != second.shape[0]:
        product = functional.linear(data, second)
    else:
        product, bias = functional.linear(data, second, bias), None
    found: torch.Tensor = product if bias is None else product + bias
    return found


def multiply(call: Call) -> torch.Tensor:
    """`MatMul`; constant weights come as (features, values)."""
    first, second = call.given
    if call.static[1] is None:
        product: torch.Tensor = first @ second
        return product
    if second.ndim == 2:
        return functional.linear(first, second)
    other: torch.Tensor = first @ (second.swapaxes(-1, -2) if second.ndim > 1 else second)
    return other


def pool_largest(call: Call) -> torch.Tensor:
    """`MaxPool` without indices."""
    if len(call.node.output) > 1 or call.attributes.get("storage_order", 0):
        raise call.refused("gives places too")
    kernel = list(call.attributes["kernel_shape"])
    rank = len(kernel)
    strides, dilations = _per_axis(call, "strides", rank), _per_axis(call, "dilations", rank)
    data, padding = _padded(call, kernel, strides, dilations, -math.inf)
    found: torch.Tensor = _LARGEST[rank](
        data, kernel, strides, padding, dilations, ceil_mode=bool(call.attributes.get("ceil_mode", 0))
    )
    return found


def pool_mean(call: Call) -> torch.Tensor:
    """`AveragePool`."""
    kernel = list(call.attributes["kernel_shape"])
    rank = len(kernel)
    strides = _per_axis(call, "strides", rank)
    before, behind = _pads(call, rank)
    counts = bool(call.attributes.get("count_include_pad", 0))
    data, padding = call.data, before
    if before != behind:
        if not counts:
            raise call.refused("has a padding that differs between the sides")
        data, padding = _padded(call, kernel, strides, [1] * rank, 0.0)
    if _per_axis(call, "dilations", rank) != [1] * rank or call.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise call.refused("has dilations or a padding by name")
    ceil = bool(call.attributes.get("ceil_mode", 0))
    found: torch.Tensor = _MEAN[rank](data, kernel, strides, padding, ceil, counts)
    return found


def pool_all(call: Call) -> torch.Tensor:
    """`GlobalAveragePool`."""
    return call.data.mean(list(range(2, call.data.ndim)), keepdim=True)


def pool_all_largest(call: Call) -> torch.Tensor:
    """`GlobalMaxPool`."""
    return call.data.amax(list(range(2, call.data.ndim)), keepdim=True)


def resize(call: Call) -> torch.Tensor:
    """`Resize` of maps to a fixed size."""
    sides, mode = _resized(call), _mode_of_resize(call)
    if mode is None or call.attributes.get("antialias", 0) or call.data.ndim != 4:
        words = (call.text(name, "by default") for name in ("mode", "coordinate_transformation_mode", "nearest_mode"))
        raise call.refused(f"is of a kind that PyTorch does not have ({', '.join(words)})")
    if mode.startswith("nearest"):
        return functional.interpolate(call.data, sides, mode=mode)
    corners = call.text("coordinate_transformation_mode", "half_pixel") == "align_corners"
    return functional.interpolate(call.data, sides, mode=mode, align_corners=corners)


def _mode_of_resize(call: Call) -> str | None:
    """Returns PyTorch's mode for a resize, None where it has none."""
    mode, place = call.text("mode", "nearest"), call.text("coordinate_transformation_mode", "half_pixel")
    if mode in ("linear", "cubic") and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        usual = mode == "linear" or math.isclose(call.attributes.get("cubic_coeff_a", -0.75), -0.75, rel_tol=1e-6)
        return {"linear": "bilinear", "cubic": "bicubic"}[mode] if usual else None
    rounding = call.text("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and (place, rounding) == ("asymmetric", "floor"):
        return "nearest"
    # A half is rounded only where a side does not grow by a whole number.
    whole = all(side % int(size) == 0 for side, size in zip(_resized(call), call.data.shape[2:], strict=True))
    exact = mode == "nearest" and place == "half_pixel" and (whole or rounding == "round_prefer_ceil")
    return "nearest-exact" if exact else None


def _resized(call: Call) -> list[int]:
    sizes, factors = call.value(3), call.value(2)
    given = [int(size) for size in call.data.shape]
    if sizes is not None and sizes.size:
        found = [int(size) for size in sizes]
    elif factors is not None and factors.size:
        found = [math.floor(size * float(factor)) for size, factor in zip(given, factors, strict=True)]
    else:
        raise call.refused("has no size")
    if call.attributes.get("axes") is not None or found[:2] != given[:2]:
        raise call.refused("changes other dimensions than those of a map")
    return found[2:]


def _per_axis(call: Call, name: str, rank: int, default: int = 1) -> list[int]:
    return [int(one) for one in call.attributes.get(name, [default] * rank)]


def _pads(call: Call, rank: int) -> tuple[list[int], list[int]]:
    pads = [int(one) for one in call.attributes.get("pads", [0] * 2 * rank)]
    return pads[:rank], pads[rank:]


def _padded(
    call: Call, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], value: float
) -> tuple[torch.Tensor, list[int]]:
    """Returns the data, padded where its sides get different paddings, and the padding that is left to the layer."""
    rank, named = len(kernel), call.text("auto_pad", "NOTSET")
    before, behind = _pads(call, rank)
    if named in ("SAME_UPPER", "SAME_LOWER"):
        before, behind = _same(call.data.shape[2:], kernel, strides, dilations, lower=named == "SAME_LOWER")
    if before == behind and all(2 * pad <= size or value == 0 for pad, size in zip(before, kernel, strict=True)):
        return call.data, before
    around: list[Any] = [pad for pair in zip(reversed(before), reversed(behind), strict=True) for pad in pair]
    return functional.pad(call.data, around, value=value), [0] * rank


def _same(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, lower: bool
) -> tuple[list[int], list[int]]:
    """Returns the paddings that give ⌈size / stride⌉ results."""
    totals = [
        max(0, (-(-int(size) // stride) - 1) * stride + (side - 1) * dilation + 1 - int(size))
        for size, side, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (more, less) if lower else (less, more)


OPERATORS: dict[str, Callable[[Call], Any]] = {
    "AveragePool": pool_mean,
    "Conv": convolve,
    "ConvTranspose": convolve_transposed,
    "Gemm": multiply_general,
    "GlobalAveragePool": pool_all,
    "GlobalMaxPool": pool_all_largest,
    "MatMul": multiply,
    "MaxPool": pool_largest,
    "Resize": resize,
}

"""The sum of two convolutions of one tensor as one convolution.

With stride s equal, output i reads input positions i·s − p + j·d for taps j = 0 … k − 1. Two kernels of dilation d and
sizes k ≤ K read around the same centre, for every image size, exactly when 2p − d(k − 1) = 2P − d(K − 1). Then tap j of
the small kernel is tap j + (K − k)/2 of the large one, which must be a whole number.

A kernel of g groups, out × in/g, is a kernel of G groups for every divisor G of g, with zeros off the block diagonal.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd, prod
from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from ghostdeploy.deploy.passes.convolution import Layer


def cost(layer: Layer) -> int:
    """Returns the weights of a layer, which is its multiplications per output pixel."""
    return prod(layer.weight.shape)


def combine(first: Layer, second: Layer) -> Layer | None:
    """Returns the layer whose output is the sum of both outputs, None where that is refused.

    Name and attributes are those of `first`.
    """
    dilation = _common_dilation(first, second)
    if dilation is None or not _aligned(first, second):
        return None
    kernel = tuple(max(a, b) for a, b in zip(first.kernel, second.kernel, strict=True))
    if any((k - small) % 2 for layer in (first, second) for k, small in zip(kernel, layer.kernel, strict=True)):
        return None
    groups = gcd(first.groups, second.groups)
    size = first.outputs * (first.inputs // groups) * prod(kernel)
    limit = cost(first) + cost(second) if first.groups == second.groups else max(cost(first), cost(second))
    if size > limit:
        return None
    padding = tuple(
        p + d * (k - small) // 2 for p, d, k, small in zip(first.padding, dilation, kernel, first.kernel, strict=True)
    )
    weight = widened(regrouped(first, groups), kernel) + widened(regrouped(second, groups), kernel)
    bias = first.bias if second.bias is None else second.bias if first.bias is None else first.bias + second.bias
    return replace(first, weight=weight, bias=bias, groups=groups, padding=padding, dilation=dilation)


def widened(weight: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Puts zeros around a kernel, in equal parts."""
    margins = [(k - small) // 2 for k, small in zip(kernel, weight.shape[2:], strict=True)]
    return functional.pad(weight, [margin for axis in reversed(margins) for margin in (axis, axis)])


def regrouped(layer: Layer, groups: int) -> Tensor:
    """Returns the weight of a layer written with fewer groups."""
    if groups == layer.groups:
        return layer.weight
    rows, columns = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
    ratio = layer.groups // groups
    wide = layer.weight.new_zeros(layer.weight.shape[0], columns * ratio, *layer.kernel)
    for group in range(layer.groups):
        start = (group % ratio) * columns
        own = slice(group * rows, (group + 1) * rows)
        wide[own, start : start + columns] = layer.weight[own]
    return wide


def _common_dilation(first: Layer, second: Layer) -> tuple[int, ...] | None:
    """Returns the dilation per axis; a kernel of one tap goes along with any."""
    same_form = (
        first.source is second.source
        and first.rank == second.rank
        and first.stride == second.stride
        and (first.inputs, first.outputs) == (second.inputs, second.outputs)
    )
    if not same_form:
        return None
    chosen = []
    for axis in range(first.rank):
        wanted = {layer.dilation[axis] for layer in (first, second) if layer.kernel[axis] > 1}
        if len(wanted) > 1:
            return None
        chosen.append(wanted.pop() if wanted else 1)
    return tuple(chosen)


def _aligned(first: Layer, second: Layer) -> bool:
    return _centre(first) == _centre(second)


def _centre(layer: Layer) -> list[int]:
    axes = zip(layer.padding, layer.dilation, layer.kernel, strict=True)
    return [2 * p - d * (k - 1) for p, d, k in axes]

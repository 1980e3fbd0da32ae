"""Multiply-accumulates and bytes of layers with weights, and which layers are memory-bound: the one counter for all.

    MACs of a layer             output elements · weights per output feature    (transposed convolution: input elements)
    activation bytes            input elements + output elements, times their size

Float weights and activations count four bytes however they are stored: the engines compute in float32 and unpack half
precision when they load. INT8 counts one. Everything between the layers (activations, sums, pools) counts nothing, as
if it were fused, so a limit made of these figures is never too high for that reason.

Which layers `hybrid` stores in INT8 is chosen by arithmetic and not by name:

    arithmetic intensity of a layer = MACs per weight read = output positions · images per inference
    it is memory-bound while       MACs / (MACs per second) < weights / (weights per second)

With R MACs and W weights per second, that is an intensity below R / W. A core does 30 to 130 G MACs per second in float
(AVX2 to AVX-512) and reads 2.5 to 5 G float weights per second from memory: R / W is 12 at least. A squeeze-and-excite
layer, the head after the pool and the classifier have 1 per image, a 1×1 convolution on a 7×7 map has 49.
A layer of fewer than `SMALLEST` weights stays: what integers save is less than quantizing its input costs.
Source: Williams et al., "Roofline", CACM 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT_BYTES = 4
BALANCE = 12
"""MACs per weight below which a layer is memory-bound."""
SMALLEST = 4096
"""Weights: at 10 GB/s, three of four bytes saved are a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer, for one call of the engine."""

    name: str
    macs: int
    weight_bytes: int
    activation_bytes: int


def layer_cost(
    name: str,
    *,
    weights: Sequence[int],
    features: int,
    data: Sequence[int],
    output: Sequence[int],
    weight_size: int,
    data_size: int,
    transposed: bool = False,
) -> LayerCost:
    """Returns the cost of a layer.

    Args:
        name: Its name.
        weights: Shape of the weights.
        features: Size of the weights' dimension that `output` (transposed: `data`) has its channels in.
        data: Shape of the input.
        output: Shape of the output.
        weight_size: Bytes of a weight.
        data_size: Bytes of an activation.
        transposed: A transposed convolution: each input element uses the weights of its channel.
    """
    return LayerCost(
        name=name,
        macs=macs(weights, features=features, image=data if transposed else output) or 0,
        weight_bytes=prod(weights) * weight_size,
        activation_bytes=(prod(data) + prod(output)) * data_size,
    )


def macs(weights: Sequence[int], *, features: int, image: Sequence[int | None]) -> int | None:
    """Returns the multiply-accumulates of a layer.

    Args:
        weights: Shape of the weights.
        features: Size of the dimensions of the weights that `image` has its channels in.
        image: Shape of the output, of the input for a transposed convolution; without its batch for one image.

    Returns:
        None where a size is unknown.
    """
    sizes = [size for size in image if size is not None]
    return prod(sizes) * (prod(weights) // max(1, features)) if len(sizes) == len(image) else None


def waits_for_memory(weights: int, positions: int, batch: int | None) -> bool:
    """Returns whether INT8 weights make a layer faster by making it smaller.

    Args:
        weights: Of the layer.
        positions: Output positions that use each weight, in one image.
        batch: Images per inference; None is free and counts as one.
    """
    return weights >= SMALLEST and positions * (batch or 1) < BALANCE

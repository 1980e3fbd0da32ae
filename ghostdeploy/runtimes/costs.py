"""Multiply-accumulates and bytes of each layer with weights, read from the payload that an engine runs.

    MACs of a layer             output elements · weights per output feature    (transposed convolution: input elements)
    activation bytes            input elements + output elements, times their size

Float weights and activations count four bytes however they are stored: the engines compute in float32 and unpack half
precision when they load. INT8 counts one. Everything between the layers (activations, sums, pools) counts nothing, as
if it were fused, so a limit made of these figures is never too high for that reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT_BYTES = 4


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
        transposed: A transposed convolution: each input element meets the weights of its channel.
    """
    per_element = prod(weights) // max(1, features)
    return LayerCost(
        name=name,
        macs=prod(data if transposed else output) * per_element,
        weight_bytes=prod(weights) * weight_size,
        activation_bytes=(prod(data) + prod(output)) * data_size,
    )

"""What equalization multiplied each channel with, so that tensors inside an INT8 payload can be compared.

Two float graphs differ by equalization alone: channel c of a tensor is y_c in one and f_c·y_c in the other, exactly up
to the rounding of floats (see `deploy.fold.passes.equalize_channels`). So over any images

    f_c = Σ|f_c·y_c| / Σ|y_c|,      1 where the channel is 0 on all of them

and no pass has to tell. Six digits are kept: their error is 110 dB below the signal.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    Activations = Iterable[tuple[str, NDArray[Any]]]

DIGITS = 6
_SAME = 1e-4
"""Relative difference that float rounding gives, with room."""


def channel_factors(
    sources: Mapping[str, str], plain: Activations, equalized: Activations, channels: Callable[[NDArray[Any]], int]
) -> dict[str, tuple[float, ...]]:
    """Returns the factor of each channel that a layer reads, for the layers whose inputs were equalized.

    Args:
        sources: Tensor that each layer reads.
        plain: Tensors of the graph as exported, by name, a name as often as there are pieces.
        equalized: The same of the equalized graph.
        channels: Returns the axis of a tensor's channels.
    """
    before, after = _magnitudes(plain, channels), _magnitudes(equalized, channels)
    found = {}
    for layer, tensor in sources.items():
        if tensor not in before or tensor not in after:
            continue
        alive = before[tensor] > 0
        factors = np.divide(after[tensor], before[tensor], out=np.ones_like(before[tensor]), where=alive)
        if np.abs(factors - 1).max() > _SAME:
            found[layer] = tuple(float(f"{one:.{DIGITS}g}") for one in factors)
    return found


def _magnitudes(tensors: Activations, channels: Callable[[NDArray[Any]], int]) -> dict[str, NDArray[np.float64]]:
    """Returns Σ|y_c| of each channel, by tensor."""
    sums: dict[str, Any] = defaultdict(float)
    for name, values in tensors:
        others = tuple(axis for axis in range(values.ndim) if axis != channels(values) % values.ndim)
        sums[name] = sums[name] + np.abs(values).sum(axis=others, dtype=np.float64)
    return dict(sums)

"""Which layers wait for memory: the choice of `hybrid`, by arithmetic and not by name.

    arithmetic intensity of a layer = MACs per weight read = output positions · images per inference
    it waits for memory while       MACs / (MACs per second) < weights / (weights per second)

With R MACs and W weights per second, that is an intensity below R / W. A core does 30 to 130 G MACs per second in float
(AVX2 to AVX-512) and reads 2.5 to 5 G float weights per second from memory: R / W is 12 at least. A squeeze-and-excite
layer, the head behind the pool and the classifier have 1 per image, a 1×1 convolution on a 7×7 map has 49.
A layer of fewer than `SMALLEST` weights stays: what integers save is less than quantizing its input costs.
Source: Williams et al., "Roofline", CACM 2009.
"""

from __future__ import annotations

BALANCE = 12
"""MACs per weight below which a layer waits for memory."""
SMALLEST = 4096
"""Weights: at 10 GB/s, three of four bytes saved are a microsecond."""


def waits_for_memory(weights: int, positions: int, batch: int | None) -> bool:
    """Tells whether INT8 weights make a layer faster by making it smaller.

    Args:
        weights: Of the layer.
        positions: Places of the output that meet each weight, in one image.
        batch: Images per inference; None is free and counts as one.
    """
    return weights >= SMALLEST and positions * (batch or 1) < BALANCE

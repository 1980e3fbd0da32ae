"""Resizing with `corner` sampling, in NumPy: output pixel i is the source at i / scale.

    source place   p = i · old / new
    pixel          (1 − f) · s[⌊p⌋] + f · s[⌊p⌋ + 1],  f = p − ⌊p⌋, in both directions, rounded half up
    outside        0

There is no antialiasing: a shrunk image is sampled. It is `warpPerspective` of OpenCV 5 with a matrix that only scales,
as NanoDet resizes, within one step of 255; OpenCV 4 rounds p to 1/32 of a pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize_from_corner(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Returns pixels (H, W, C) as uint8 (height, width, C)."""
    rows = _blended(pixels, height)
    both = _blended(rows.transpose(1, 0, 2), width).transpose(1, 0, 2)
    found: NDArray[np.uint8] = np.floor(both + np.float32(0.5)).astype(np.uint8)
    return found


def _blended(lines: NDArray[np.generic], count: int) -> NDArray[np.float32]:
    """Returns `count` lines, blended from those along the first axis; behind the last one there is a black line."""
    places = np.arange(count) * (len(lines) / count)
    first = np.minimum(np.floor(places).astype(np.int64), len(lines) - 1)
    share = (places - first).astype(np.float32).reshape(-1, *[1] * (lines.ndim - 1))
    padded = np.concatenate([lines, np.zeros_like(lines[:1])])
    found: NDArray[np.float32] = (1 - share) * padded[first] + share * padded[first + 1]
    return found

"""Resizing with `corner` sampling, in NumPy: output pixel i is the source at i / scale.

    source place   p = i · old / new
    pixel          (1 − f) · s[⌊p⌋] + f · s[⌊p⌋ + 1],  f = p − ⌊p⌋, in both directions, rounded half up
    outside        0

A shrunk image is sampled, without antialiasing, so only the pixels that are read are touched, and a few rows at a time:
what lies between stays in the cache. It is `warpPerspective` of OpenCV 5 with a matrix that only scales, as NanoDet
resizes, within one step of 255; OpenCV 4 rounds p to 1/32 of a pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_ROWS = 32
"""Rows that are computed at a time."""


def resize_from_corner(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Returns pixels (H, W, C) as uint8 (height, width, C)."""
    rows, columns, channels = pixels.shape
    lines = pixels.reshape(rows, columns * channels)
    y, low, high = _shares(rows, height)
    x, left, right = _shares(columns, width)
    left, right = np.repeat(left, channels), np.repeat(right, channels)
    here = (x[:, None] * channels + np.arange(channels)).reshape(-1)
    right_of = np.minimum(here + channels, columns * channels - 1)
    below = np.minimum(y + 1, rows - 1)
    found = np.empty((height, width * channels), np.uint8)
    for start in range(0, height, _ROWS):
        part = slice(start, start + _ROWS)
        pair = lines[y[part]], lines[below[part]]
        shares = low[part, None], high[part, None]
        blend = _blended(pair, here, shares) * left
        blend += _blended(pair, right_of, shares) * right
        blend += np.float32(0.5)
        found[part] = blend  # towards 0, which is the floor: nothing is negative
    return found.reshape(height, width, channels)


def _shares(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Returns the line before each place, its share and that of the next one; behind the last line there is black."""
    places = np.arange(new) * (old / new)
    first = np.minimum(np.floor(places).astype(np.int64), old - 1)
    share = (places - first).astype(np.float32)
    return first, 1 - share, share * (first + 1 < old).astype(np.float32)


def _blended(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    columns: NDArray[np.int64],
    shares: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Returns some columns of upper and lower rows, mixed by their shares."""
    mixed: NDArray[np.float32] = pair[0].take(columns, axis=1) * shares[0]
    mixed += pair[1].take(columns, axis=1) * shares[1]
    return mixed

"""A picture with its mask: each class in its colour, borders opaque, and the names of what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ghostdeploy.tasks.drawing import Labels, colour, scale
from ghostdeploy.tasks.segment.mask import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]

_OPACITY = 0.45
_NAMED = 0.002
"""Share of the picture from which a class is named."""
_LOOKED_AT = 100_000


def draw(image: Image.Image, mask: Mask, labels: Sequence[str] = (), *, background: int | None = 0) -> Image.Image:
    """Returns a copy of a picture with classes in colour.

    Args:
        image: Upright.
        mask: (H, W) Class of each pixel of this image.
        labels: Names of classes; a class without one is its number.
        background: Class that stays as it is; None colours all.
    """
    plain = image.convert("RGB")
    counts = np.bincount(mask.ravel(), minlength=256)
    shown = [label for label in np.flatnonzero(counts).tolist() if label not in (IGNORED, background)]
    paint = Image.fromarray(mask)
    paint.putpalette([value for label in range(256) for value in colour(label)])
    alpha = np.zeros(256, np.uint8)
    alpha[shown] = round(255 * _OPACITY)
    cover = np.take(alpha, mask)
    cover[_border(mask, scale(plain.size).line) & (cover > 0)] = 255
    picture = Image.composite(paint.convert("RGB"), plain, Image.fromarray(cover))
    words = Labels(picture)
    for label in shown:
        if counts[label] < _NAMED * mask.size:
            continue
        x, y = _middle(mask == label)
        name = labels[label] if label < len(labels) else str(label)
        left, low = x - words.width(name) / 2, y + words.height / 2
        words.put(name, "", [(left, low), (left, low + words.height), (left, low - words.height)], colour(label))
    return picture


def _border(mask: Mask, line: int) -> NDArray[np.bool_]:
    """Returns the pixels that are at most `line` pixels from another class to the side, above or below."""
    found = np.zeros(mask.shape, bool)
    for ours, seen in ((mask, found), (mask.T, found.T)):
        other = ours[line:] != ours[:-line]
        seen[line:] |= other
        seen[:-line] |= other
    return found


def _middle(here: NDArray[np.bool_]) -> tuple[float, float]:
    """Returns the pixel of a class that is nearest to the mean of all; of a large class every n-th is looked at."""
    where = np.flatnonzero(here)
    where = where[:: 1 + len(where) // _LOOKED_AT]
    y, x = np.divmod(where, here.shape[1])
    nearest = np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2)
    return float(x[nearest]), float(y[nearest])

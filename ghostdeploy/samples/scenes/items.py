"""Items of Fashion-MNIST as sprites: silhouettes, and eight points that every item has.

    silhouette   pixels above 12 of 255, and what they enclose
    points       0, 1  left and right at 8 % of the height       4, 5  left and right at 92 % of the height
                 2, 3  left-most and right-most                  6, 7  farthest down to the left and right, at 45°

Where several pixels are extreme, up to half a pixel apart, a point is their mean. Coordinates are continuous: pixel
(i, j) covers j … j + 1 and i … i + 1. Mirrored items have the points of a pair exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLD = 12
POINTS = 8
MIRRORED = (1, 0, 3, 2, 5, 4, 7, 6)
"""Point that stands in the place of each, in a mirrored image."""
_TIE = 0.5


@dataclass(frozen=True, eq=False)
class Items:
    """Many items."""

    gray: NDArray[np.uint8]
    """(N, 28, 28)"""
    masks: NDArray[np.bool_]
    """(N, 28, 28) Silhouettes."""
    labels: NDArray[np.int64]
    """(N,) 0 to 9."""

    def __len__(self) -> int:
        return len(self.labels)

    def points(self, index: int) -> NDArray[np.float64]:
        """Returns the points of one item, (8, 2): x, y."""
        return points_of(self.masks[index])

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Returns the smallest box around one silhouette: x0, y0, x1, y1."""
        rows, columns = (np.flatnonzero(self.masks[index].any(axis)) for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def items_of(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Items:
    """Returns the items of images (N, 28, 28, 3) or (N, 28, 28) that have a pixel above the threshold."""
    gray = images[..., 0] if images.ndim == 4 else images
    masks = filled(gray > THRESHOLD)
    there = masks.any((1, 2))
    return Items(np.ascontiguousarray(gray[there]), masks[there], np.asarray(labels, np.int64)[there])


def filled(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns masks (N, H, W) with their holes: all that no path outside reaches from the border."""
    free = ~np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    outside = np.zeros_like(free)
    outside[:, 0] = outside[:, -1] = outside[:, :, 0] = outside[:, :, -1] = True
    while True:
        grown = outside.copy()
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown[:, :, 1:] |= outside[:, :, :-1]
        grown[:, :, :-1] |= outside[:, :, 1:]
        grown &= free
        if np.array_equal(grown, outside):
            return ~outside[:, 1:-1, 1:-1]
        outside = grown


def points_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the eight points of a silhouette (H, W), see the module docstring."""
    rows, columns = np.nonzero(mask)
    x, y = columns + 0.5, rows + 0.5
    top, height = rows.min(), rows.max() + 1 - rows.min()
    found = []
    high, low = _row(rows, top + 0.08 * height), _row(rows, top + 0.92 * height)
    for row in (high, low):
        found += [(x[row].min(), y[row][0]), (x[row].max(), y[row][0])]
    for measure in (-x, x, y - x, y + x):
        extreme = measure >= measure.max() - _TIE
        found.append((x[extreme].mean(), y[extreme].mean()))
    return np.array(found)[[0, 1, 4, 5, 2, 3, 6, 7]]


def _row(rows: NDArray[np.int64], wanted: float) -> NDArray[np.bool_]:
    """Returns which pixels are in the filled row nearest to `wanted`."""
    filled_rows = np.unique(rows)
    chosen: NDArray[np.bool_] = rows == filled_rows[np.abs(filled_rows + 0.5 - wanted).argmin()]
    return chosen

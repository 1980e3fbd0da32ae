"""Where an image lands in the network's input, and how points go there and back.

    crop              S = rounding(size / crop_fraction)
      square          short side S, long side ⌊S · long / short⌋: torchvision's Resize, timm's
      not square      r = min(h / S_h, w / S_w), sides round(h / r), round(w / r): timm's ResizeKeepRatio
    stretch           H, W
    letterbox         r = min(H / h, W / w), at most 1 without `upscale`; the side that fits is H or W, the other
                      rounding(r · side), at least 1

A centred crop begins at round((resized − size) / 2), halves to even; a centred letterbox at ⌊(size − resized) / 2⌋. Per
axis a point x of the image is X = x · resized / original + offset in the network.

Coordinates are those of boxes: 0 is the left edge of the first pixel, w the right edge of the last. `corner` sampling
puts the picture (1 − scale) / 2 pixels further right and down, but its trainers move boxes by the matrix alone, so the
network has learned X = x · scale all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.preprocess.record import Preprocess


@dataclass(frozen=True, slots=True)
class Placement:
    """A resized image and its place."""

    height: int
    width: int
    """Of the resized image in pixels."""
    top: int
    left: int
    """Of its first pixel in the network's input; negative where it is cropped."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The map between an image and the network's input, in pixels of either."""

    scale_x: float
    scale_y: float
    """Pixels of the network per pixel of the image."""
    offset_x: float
    offset_y: float
    """Where the image's corner lands, in pixels of the network."""

    def to_network(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Maps points (…, 2), x and y in pixels of the image, into the network's input; a box is two points."""
        return np.asarray(points, np.float64) * self._scale + self._offset

    def to_image(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Maps points (…, 2), x and y in pixels of the network's input, into the image; nothing is clipped."""
        return (np.asarray(points, np.float64) - self._offset) / self._scale

    @property
    def _scale(self) -> NDArray[np.float64]:
        return np.array([self.scale_x, self.scale_y])

    @property
    def _offset(self) -> NDArray[np.float64]:
        return np.array([self.offset_x, self.offset_y])


def geometry(spec: Preprocess, original_size: tuple[int, int]) -> Geometry:
    """Returns where points of an image land.

    Args:
        spec: The model's record.
        original_size: Height and width of the upright image in pixels.
    """
    height, width = original_size
    placed = place(spec, height, width)
    return Geometry(placed.width / width, placed.height / height, float(placed.left), float(placed.top))


def place(spec: Preprocess, height: int, width: int) -> Placement:
    """Returns the place of an image of the given height and width in pixels."""
    if spec.resize == "stretch":
        return Placement(*spec.sides, 0, 0)
    if spec.resize == "letterbox":
        return _letterbox(spec, height, width)
    new_height, new_width = _covering(spec, height, width)
    rows, columns = spec.sides
    return Placement(new_height, new_width, -round((new_height - rows) / 2.0), -round((new_width - columns) / 2.0))


def _covering(spec: Preprocess, height: int, width: int) -> tuple[int, int]:
    rows, columns = (spec.rounded(side / spec.crop_fraction) for side in spec.sides)
    short = min(height, width)
    if rows == columns:
        if short == rows:
            return height, width
        new = [rows if side == short else int(rows * side / short) for side in (height, width)]
    else:
        ratio = min(height / rows, width / columns)
        new = [round(side / ratio) for side in (height, width)]
    return new[0], new[1]


def _letterbox(spec: Preprocess, height: int, width: int) -> Placement:
    rows, columns = spec.sides
    ratio = min(rows / height, columns / width)
    if not spec.upscale:
        ratio = min(ratio, 1.0)
    new = [
        min(most, max(1, most if ratio == most / side else spec.rounded(side * ratio)))
        for side, most in ((height, rows), (width, columns))
    ]
    if spec.anchor == "corner":
        return Placement(new[0], new[1], 0, 0)
    return Placement(new[0], new[1], (rows - new[0]) // 2, (columns - new[1]) // 2)

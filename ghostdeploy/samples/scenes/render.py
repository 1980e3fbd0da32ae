"""Draws items on photographs, with labels that are exact.

    background   a crop of a photograph: mirrored, blurred, gain and gamma
    item         turned, scaled (bicubic), its grey values times a gradient of three colours; a soft shadow beneath; its
                 alpha is the silhouette under the same map
    camera       exposure, noise of σ 4, JPEG of quality 60 to 95: the bytes are the image

A pixel belongs to the last item drawn with alpha > ½ there. Every draw is a function of its seed alone: seed, split and
number go into one generator, so the hundredth scene needs no other.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from ghostdeploy.samples import photos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.samples.scenes.items import Items

    Float = NDArray[np.float64]
    Pixels = NDArray[np.float32]
    Window = tuple[slice, slice]

EVALUATION_PHOTOS = frozenset({"astronaut", "cat", "coffee", "rocket"})
"""All are in the public domain; the other eight are for training and calibration."""
_LARGEST_TURN = 25.0
_SHADOW = 0.3
_NOISE = 4.0
_QUALITY = (60, 95)


class Pose(NamedTuple):
    """Where an item lies: a point p of the item is at `centre` + `matrix` · (p − `origin`)."""

    matrix: Float
    """(2, 2)"""
    origin: Float
    """(2,) x, y in the item."""
    centre: Float
    """(2,) x, y in the image."""

    def place(self, points: Float) -> Float:
        """Maps points of the item (K, 2) into the image."""
        return self.centre + (points - self.origin) @ self.matrix.T


@dataclass(eq=False)
class Canvas:
    """An image that is being drawn."""

    pixels: Pixels
    """(H, W, 3), 0 to 255."""
    owner: NDArray[np.int16]
    """(H, W) Number of the item that a pixel belongs to, −1 for none."""


def backgrounds(*, evaluation: bool) -> list[Image.Image]:
    """Returns the photographs of one side."""
    chosen = [path for path in photos() if (path.stem in EVALUATION_PHOTOS) == evaluation]
    return [Image.open(path).convert("RGB") for path in chosen]


def canvas(rng: np.random.Generator, pictures: Sequence[Image.Image], size: tuple[int, int]) -> Canvas:
    """Returns a canvas of height and width `size` with a background."""
    height, width = size
    picture = pictures[int(rng.integers(len(pictures)))]
    share = rng.uniform(0.4, 1.0) * min(picture.width / width, picture.height / height)
    wide, high = share * width, share * height
    left, top = rng.uniform(0, picture.width - wide), rng.uniform(0, picture.height - high)
    image = picture.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + wide, top + high))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    curve = np.power(np.asarray(image, np.float32) / 255, rng.uniform(0.7, 1.4), dtype=np.float32)
    return Canvas(curve * np.float32(255 * rng.uniform(0.6, 1.1)), np.full(size, -1, np.int16))


def pose(rng: np.random.Generator, box: tuple[int, int, int, int], longest: float, centre: Float) -> Pose:
    """Returns a random turn of an item whose box has `longest` pixels on its longer side, its middle at `centre`."""
    x0, y0, x1, y1 = box
    scale = longest / max(x1 - x0, y1 - y0)
    turn = np.deg2rad(rng.uniform(-_LARGEST_TURN, _LARGEST_TURN))
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return Pose(matrix, np.array([(x0 + x1) / 2, (y0 + y1) / 2]), centre)


def covered(mask: NDArray[np.bool_], where: Pose, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns the pixels (H, W) that an item would own."""
    found = np.zeros(size, bool)
    window = _window(where, size, 0)
    found[window] = _alpha(mask, where, window) > 0.5
    return found


def paint(rng: np.random.Generator, target: Canvas, items: Items, index: int, where: Pose, number: int) -> None:
    """Draws one item with its shadow over what is there; its pixels then belong to `number`."""
    size = target.owner.shape
    fallen = where._replace(centre=where.centre + rng.uniform(-6, 6, 2))
    window = _window(fallen, size, margin=12)
    shadow = Image.fromarray((255 * _alpha(items.masks[index], fallen, window)).astype(np.uint8))
    soft = np.asarray(shadow.filter(ImageFilter.GaussianBlur(rng.uniform(1, 4))), np.float32)
    target.pixels[window] *= 1 - np.float32(_SHADOW / 255) * soft[..., None]

    window = _window(where, size, 0)
    alpha = _alpha(items.masks[index], where, window)
    gray = np.clip(_mapped(items.gray[index].astype(np.float32) / 255, where, window), 0, 1)[..., None]
    colour = _gradient(rng, alpha.shape) * (np.float32(0.25) + np.float32(0.75) * gray)
    pixels = target.pixels[window]
    pixels += alpha[..., None] * (colour - pixels)
    target.owner[window][alpha > 0.5] = number


def shoot(rng: np.random.Generator, target: Canvas) -> bytes:
    """Returns the image as the JPEG file that a camera would have written."""
    pixels = target.pixels * np.float32(rng.uniform(0.7, 1.25))
    pixels = pixels + rng.normal(0, _NOISE, pixels.shape).astype(np.float32)
    stream = io.BytesIO()
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    image.save(stream, "JPEG", quality=int(rng.integers(_QUALITY[0], _QUALITY[1] + 1)))
    return stream.getvalue()


def decoded(file: bytes) -> NDArray[np.uint8]:
    """Returns the pixels of a JPEG file, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(file)), np.uint8)


def generator(seed: int, split: int, number: int) -> np.random.Generator:
    """Returns the generator of one draw."""
    return np.random.default_rng([seed, split, number])


def _window(where: Pose, size: tuple[int, int], margin: int) -> Window:
    """Returns the rows and columns of the image that an item of 28 × 28 pixels can touch, and some more."""
    corners = where.place(np.array([(x, y) for x in (-1, 29) for y in (-1, 29)], np.float64))
    low, high = np.floor(corners.min(0)).astype(int) - margin, np.ceil(corners.max(0)).astype(int) + margin
    (x0, y0), (x1, y1) = np.clip(low, 0, size[::-1]), np.clip(high, 0, size[::-1])
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def _alpha(mask: NDArray[np.bool_], where: Pose, window: Window) -> Pixels:
    """Returns the silhouette in a window of the image, 0 to 1."""
    return np.clip(_mapped(mask.astype(np.float32), where, window), 0, 1)


def _mapped(plane: Pixels, where: Pose, window: Window) -> Pixels:
    """Returns a plane of the item in a window of the image, 0 outside of the item."""
    border = 2  # bicubic looks two pixels aside
    rows, columns = window
    back = np.linalg.inv(where.matrix)
    offset = where.origin + back @ (np.array([columns.start, rows.start]) - where.centre) + border
    coefficients = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    size = columns.stop - columns.start, rows.stop - rows.start
    source = Image.fromarray(np.pad(plane, border))
    return np.asarray(
        source.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC), np.float32
    )


def _gradient(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Returns three random colours along a random line across a window, (H, W, 3)."""
    height, width = size
    colours = rng.uniform(40, 255, (3, 3))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width]
    along = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    place = np.clip(along / 1.2 + 0.5, 0, 1)
    return np.stack([np.interp(place, (0, 0.5, 1), colours[:, channel]) for channel in range(3)], -1).astype(np.float32)

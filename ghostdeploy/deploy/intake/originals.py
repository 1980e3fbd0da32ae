"""The original images that a bundle carries, so that `verify` can run the preprocessing too.

They are small copies of the export's own images, cut to different shapes, whatever shapes those have:

    0  as it is     1  portrait     2  landscape     3  7/8 of both sides, smaller than the model's input

Longest sides are odd numbers, so that roundings of resized sides differ; where they still do not, as with images of the
model's own size, a few pixels are cut off: one image tells `floor` from `round`, another `ceil`. Gray images cannot
show the order of colours: there the last one is a shipped photograph, as are those that a small set lacks.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.decode import open_image
from ghostdeploy.encoded import source_of
from ghostdeploy.errors import InputError
from ghostdeploy.preprocess import prepare
from ghostdeploy.preprocess.geometry import place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.preprocess import Preprocess

_LONGEST = (251, 227, 239, 199)
"""Pixels; four such images compress to less than half a megabyte."""
_TRIM = 12
"""Pixels that may be cut off a side."""


def originals_of(sources: Sequence[Any], spec: Preprocess) -> tuple[NDArray[np.uint8], ...]:
    """Returns four images uint8 (H, W, 3) of different sizes, one of them portrait.

    Args:
        sources: The export's golden images, whatever `open_image` takes.
        spec: How the model takes an image.

    Returns:
        None at all where one cannot be decoded or prepared, which stops the export a little later, with its name.
    """
    photos = samples.photos()
    chosen = [*sources, *photos][: len(_LONGEST)]
    try:
        pictures = [open_image(source_of(source)) for source in chosen]
        found = _shaped(pictures, photos[0], spec)
        prepare(found, spec)
    except (InputError, OSError):
        return ()
    return found


def _shaped(pictures: list[Image.Image], photo: Path, spec: Preprocess) -> tuple[NDArray[np.uint8], ...]:
    if spec.channels == 3 and all(map(_is_gray, pictures)):
        pictures = [*pictures[:-1], open_image(photo)]
    longest = [*_LONGEST[:-1], max(1, min(_LONGEST[-1], 3 * min(spec.sides) // 4))]
    found = [_small(_cut(picture, at), most) for at, (picture, most) in enumerate(zip(pictures, longest, strict=True))]
    for at, rounding in ((1, "floor"), (2, "ceil")):
        height, width = _telling(found[at].shape[0], found[at].shape[1], spec, rounding)
        found[at] = found[at][:height, :width]
    return tuple(found)


def _telling(height: int, width: int, spec: Preprocess, rounding: str) -> tuple[int, int]:
    """Returns the size, cut as little as it takes for this rounding to give another size than `round`, if any does."""
    if spec.resize != "letterbox":
        return height, width
    one, other = (msgspec.structs.replace(spec, rounding=name) for name in ("round", rounding))
    cuts = sorted(itertools.product(range(min(_TRIM, height)), range(min(_TRIM, width))), key=sum)
    sizes = ((height - rows, width - columns) for rows, columns in cuts)
    return next((size for size in sizes if place(one, *size) != place(other, *size)), (height, width))


def _cut(picture: Image.Image, place: int) -> Image.Image:
    """Returns the middle of a picture, in the shape of its place."""
    width, height = picture.size
    if place == 1:
        width = min(7 * width // 8, 3 * height // 4)
    elif place == 2:
        height = min(7 * height // 8, 3 * width // 4)
    elif place == 3:
        width, height = 7 * width // 8, 7 * height // 8
    width, height = max(1, width), max(1, height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _small(picture: Image.Image, most: int) -> NDArray[np.uint8]:
    scale = min(1.0, most / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.uint8)


def _is_gray(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels == pixels[:, :, :1]).all())

"""Labelled masks: images, and PNG files of the same name.

    root/images/a.jpg        root/images/more/b.png
    root/masks/a.png         root/masks/more/b.png

A mask is 8 bits or less per pixel, gray or with a palette: the index is the class, whatever its colour, and 255 is no
label. Where a model has two classes and a set only 0 and 255, these are the two: editors draw such masks.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ghostdeploy.arguments import require_path
from ghostdeploy.decode import MAX_PIXELS
from ghostdeploy.errors import DataError
from ghostdeploy.machine import usable_cores
from ghostdeploy.tasks.labelled import images_in, sizes_of
from ghostdeploy.tasks.segment.mask import IGNORED

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]

_MODES = ("1", "L", "P")
_SCALED = {"L;2": 85, "L;4": 17}
"""How Pillow spreads gray of 2 and 4 bits over 8: an optimizer writes masks of few classes so."""

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, slots=True)
class LabelledMasks:
    """A set."""

    source: str
    """For messages."""
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    sizes: NDArray[np.int64]
    """(N, 2) Height and width of each upright image."""
    values: frozenset[int]
    """All that occur in masks."""
    two: bool = False
    """255 is class 1."""

    def for_classes(self, count: int) -> LabelledMasks:
        """Returns the set for a model of `count` classes; a single logit stands for two.

        Raises:
            DataError: A mask has a class that the model has not.
        """
        if count == 2 and self.values == {0, IGNORED}:
            _log.warning("masks of %s hold 0 and 255 only: 255 is taken for class 1", self.source)
            return replace(self, two=True)
        if (most := max(self.values - {IGNORED}, default=0)) >= count:
            raise DataError(
                f"masks of {self.source} go up to class {most}, expected below the {count} classes of the model",
                hint="a pixel without a label is 255",
            )
        return self

    def mask(self, index: int) -> Mask:
        """Returns one mask, uint8 (H, W), 255 where there is no label."""
        found = read_mask(self.masks[index])
        return np.minimum(found, 1) if self.two else found


def read_masks(path: str | os.PathLike[str]) -> LabelledMasks:
    """Lists a set, and warns of images without a mask; every mask is looked at.

    Args:
        path: The folder that has `images` and `masks`.

    Raises:
        DataError: It does not; no image has a mask; a mask is no index per pixel, or of another size than its image; no
            pixel has a label.
    """
    root = require_path("the labelled set", path)
    for folder in (root / "images", root / "masks"):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder, expected images, and masks of the same names beside them")
    images, masks = images_in(root / "images"), images_in(root / "masks")
    names = [name for name in images if name in masks]
    if not names:
        raise DataError(f"none of the {len(images)} images in {root}/images has a mask of its name in {root}/masks")
    if len(names) < len(images):
        _log.warning("left out of %s: %d images without a mask", root, len(images) - len(names))
    chosen = tuple(images[name] for name in names)
    sizes = sizes_of(chosen)
    paths = tuple(masks[name] for name in names)
    with ThreadPoolExecutor(usable_cores(), "ghostdeploy-masks") as pool:
        values = frozenset().union(*pool.map(_values, paths, sizes, chosen))
    if values <= {IGNORED}:
        raise DataError(f"masks of {root} hold nothing but 255, so no pixel has a label")
    return LabelledMasks(str(root), chosen, paths, sizes, values)


def _values(path: Path, size: NDArray[np.int64], image: Path) -> frozenset[int]:
    """Returns what occurs in a mask of the right size."""
    found = read_mask(path)
    if found.shape != tuple(size):
        raise DataError(
            f"mask {path} has {found.shape[1]}×{found.shape[0]} pixels, expected {size[1]}×{size[0]} as {image.name}",
            hint="masks must be drawn on the image as EXIF turns it, and resized by nearest neighbour only",
        )
    return frozenset(np.flatnonzero(np.bincount(found.ravel(), minlength=256)).tolist())


def read_mask(path: Path) -> Mask:
    """Returns the index of each pixel of a PNG file, uint8 (H, W).

    Raises:
        DataError: It is no PNG file, damaged, too large, or has colours or more than 8 bits.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mode, pixels = image.mode, image.width * image.height
            scale = _SCALED.get(str(image.tile[0][3]) if image.tile else "", 1)
            found = np.asarray(image).astype(np.uint8) if mode in _MODES and pixels <= MAX_PIXELS else None
    except Exception as error:  # Pillow's decoder raises nearly anything on damaged bytes
        raise DataError(f"mask {path} is not a readable PNG file: {error}") from error
    if mode not in _MODES:
        raise DataError(
            f"mask {path} has mode {mode}, expected an index of 8 bits per pixel",
            hint="save class indices as gray or palette PNG, not their colours",
        )
    if found is None:
        raise DataError(f"mask {path} has {pixels} pixels, expected at most {MAX_PIXELS // 1_000_000} million")
    return found // scale

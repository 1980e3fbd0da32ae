"""Writes `timm_transforms.npz`: what timm's own transforms for evaluation make of a few images, as pixels.

    pip install timm        into an environment of its own
    python tests/transforms/timm_transforms.py

The stored file is by timm 1.0.31, torchvision 0.29.1 and Pillow 13.0.0; timm is no dependency. Images are made again
from their shapes, the same to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_MEAN = (0.485, 0.456, 0.406)
_PAD = (124, 116, 104)


@dataclass(frozen=True)
class Case:
    """One image, and the same preprocessing in timm's words and in ours."""

    image: tuple[int, int]
    timm: dict[str, Any]
    spec: dict[str, Any]


def _cases() -> list[Case]:
    found = []
    shapes = ((60, 45), (45, 60), (53, 38), (38, 91), (20, 17))
    for size, fraction, shape in ((28, 0.95, shapes[0]), (28, 0.95, shapes[3]), (28, 0.95, shapes[4])):
        found.append(_case(shape, size, fraction, "center", rounding="floor"))
    for fraction in (0.875, 0.9, 0.96, 1.0):
        found.append(_case(shapes[1], 24, fraction, "center", rounding="floor", interpolation="bilinear"))
    for shape in shapes:
        found.append(_case(shape, (24, 36), 0.9, "center", rounding="floor"))
        found.append(_case(shape, (20, 32), 1.0, "squash", resize="stretch"))
        found.append(_case(shape, 28, 1.0, "border", resize="letterbox", pad=_PAD))
    return found


def _case(shape: tuple[int, int], size: Any, fraction: float, mode: str, **fields: Any) -> Case:
    spec = {"size": size, "crop_fraction": fraction, "interpolation": "bicubic", **fields}
    sides = (size, size) if isinstance(size, int) else size
    asked = {"img_size": sides, "crop_pct": fraction, "crop_mode": mode, "interpolation": spec["interpolation"]}
    return Case(shape, asked, spec)


CASES = _cases()


def picture(height: int, width: int) -> np.ndarray:
    """Returns uint8 (height, width, 3) from whole numbers alone."""
    rows, columns, channels = np.mgrid[:height, :width, :3]
    return ((rows * rows * 7 + columns * 13 * (channels + 1) + rows * columns * 3) % 256).astype(np.uint8)


def main() -> None:
    from timm.data import create_transform

    arrays = {}
    for number, case in enumerate(CASES):
        options = {"input_size": (3, *case.timm["img_size"]), "is_training": False, "mean": _MEAN}
        chain = create_transform(
            **options,
            **{name: value for name, value in case.timm.items() if name != "img_size"},
            use_prefetcher=True,  # ends in uint8 pixels
        )
        pixels = chain(Image.fromarray(picture(*case.image)))
        arrays[str(number)] = np.asarray(pixels, np.uint8).transpose(1, 2, 0)
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    main()

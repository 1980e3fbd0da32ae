"""Writes `torchvision_transforms.npz`: what torchvision's own transforms make of a few images.

    pip download --no-deps --only-binary :all: torchvision && unzip torchvision-*.whl -d unpacked
    python tests/transforms/torchvision_transforms.py unpacked

The stored file is by torchvision 0.29.1 with Pillow 13.0.0. torchvision is no dependency, and its compiled half does
not load beside the CPU build of torch; the transforms of PIL images need only its Python files, so the `__init__`
is stepped over. Images are made from a seed, smooth with noise, and are stored too.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ((37, 91), (91, 37), (64, 64), (150, 101), (23, 17), (45, 60), (100, 36))
"""Height and width: wide, tall, square, odd margins, smaller than the crop, truncated long side, no resize."""
SPECS = (
    {"size": 32, "crop_fraction": 0.875, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    {"size": 27, "crop_fraction": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.25, 1.0)},
)


def picture(height: int, width: int) -> np.ndarray:
    """Returns uint8 (height, width, 3)."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, np.int16) + rng.integers(-40, 41, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def main() -> None:
    package = types.ModuleType("torchvision")
    package.__path__ = [str(Path(sys.argv[1]) / "torchvision")]
    sys.modules["torchvision"] = package
    transforms = importlib.import_module("torchvision.transforms.transforms")
    arrays = {}
    for shape in SHAPES:
        image = picture(*shape)
        arrays[f"image {shape[0]}x{shape[1]}"] = image
        for index, spec in enumerate(SPECS):
            for how in ("bilinear", "bicubic"):
                chain = transforms.Compose(
                    [
                        transforms.Resize(
                            round(spec["size"] / spec["crop_fraction"]),
                            interpolation=transforms.InterpolationMode[how.upper()],
                        ),
                        transforms.CenterCrop(spec["size"]),
                        transforms.ToTensor(),
                        transforms.Normalize(spec["mean"], spec["std"]),
                    ]
                )
                arrays[f"{how} {index} {shape[0]}x{shape[1]}"] = chain(Image.fromarray(image)).numpy()
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    main()

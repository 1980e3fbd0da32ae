"""A C program with a native bundle in it, and the CMake fragment that puts a network into any program.

    cmake -S FOLDER -B build -DBUNDLE=BUNDLE && cmake --build build      FOLDER is this one
    python -m ghostdeploy.samples.c BUNDLE IMAGE… -o DIR                 images as the program reads them
    build/classify BUNDLE DIR/*.ppm

Preprocessing ends where the network begins: with `--input uint8-nhwc` what is left of it is the resize, done here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.errors import BundleError
from ghostdeploy.preprocess import to_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.folder import Bundle

HOME = Path(__file__).parent


def write_pixels(bundle: Bundle, images: Sequence[Path], folder: Path) -> list[Path]:
    """Writes images as binary PPM, cropped and resized as a bundle wants them; returns the files.

    Args:
        bundle: Takes RGB images as uint8 (N, H, W, 3).
        images: Files of any kind that Pillow reads.
        folder: Made where it is missing; names are those of the images, ending in `.ppm`.

    Raises:
        BundleError: The bundle takes something else.
        DataError: An image is damaged.
    """
    spec, port = bundle.manifest.preprocess, bundle.manifest.inputs[0]
    if (port.dtype, port.layout, spec.color) != ("uint8", "nhwc", "rgb"):
        raise BundleError(
            f"{bundle.path} takes {port.dtype} {port.layout}, expected RGB bytes",
            hint="make one with: ghostdeploy export -t native --input uint8-nhwc",
        )
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for image in images:
        pixels = to_pixels(image, spec)
        height, width, _ = pixels.shape
        made.append(folder / f"{image.stem}.ppm")
        made[-1].write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes())
    return made

"""Draws the images that Python, C++ and JavaScript must read alike, and writes what Python makes of them.

    python tests/samples/images/make.py

EXIF orientations 1 to 8 of one photograph; gray and CMYK JPEG; PNG with a palette, with 16 bits, and one pixel wide.
`expected.npz` has uint8 arrays (13, H, W, 3) by the name of the preprocessing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.preprocess import Preprocess, to_pixels

HERE = Path(__file__).parent
SPECS = {
    "crop": Preprocess(size=32, crop_fraction=0.875, interpolation="bicubic"),
    "letterbox": Preprocess(size=(24, 40), resize="letterbox", crop_fraction=1.0, pad=(114, 80, 7)),
    "stretch": Preprocess(size=(24, 40), resize="stretch", crop_fraction=1.0, color="bgr"),
}
TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera that was held so stores the upright picture."""


def images() -> list[Path]:
    """Returns the files in the order of `expected.npz`."""
    return sorted(path for path in HERE.iterdir() if path.suffix in {".jpg", ".png"})


def main() -> None:
    """Writes all files."""
    picture = next(path for path in samples.photos() if path.stem == "cat")
    upright = Image.open(picture).convert("RGB").resize((90, 61), Image.Resampling.BICUBIC)
    for code, turn in TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = code
        stored = upright if turn is None else upright.transpose(turn)
        stored.save(HERE / f"exif_{code}.jpg", quality=95, exif=exif)
    upright.convert("L").save(HERE / "gray.jpg", quality=95)
    upright.convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
    upright.quantize(64).save(HERE / "palette.png")
    wide = np.asarray(upright.convert("L"), np.uint16) * 257 + np.arange(90, dtype=np.uint16)
    Image.fromarray(wide).save(HERE / "sixteen_bits.png")
    upright.resize((1, 120)).save(HERE / "thin.png")
    found = {name: np.stack([to_pixels(path, spec) for path in images()]) for name, spec in SPECS.items()}
    np.savez_compressed(HERE / "expected.npz", **found)


if __name__ == "__main__":
    main()

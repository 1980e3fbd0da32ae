"""Damaged image files: a picture or an `InputError`, in seconds and in bounded memory, whatever the bytes.

`make fuzz` tries 4,000 files, the normal run the first of each kind.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.decode import MAX_PIXELS
from ghostdeploy.errors import InputError
from ghostdeploy.preprocess import Preprocess, to_pixels
from tests.fuzzing import mutations

resource = pytest.importorskip("resource", reason="memory is measured as POSIX systems do")

SPEC = Preprocess(size=32)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
PICTURE = Image.fromarray(NOISE)
SECONDS = 10
"""Processor time of one file: far above what any takes, far below a hang."""
MEMORY = 16 * MAX_PIXELS
"""Bytes of growth: what the largest image that is decoded takes in four channels, with the copies on its way."""


def exif():
    """An EXIF block as phones write it: orientation, text, fractions, a table of its own for the place."""
    block = Image.Exif()
    block[0x0112] = 6
    block[0x010F] = "Maker"
    block.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0x829A: 0.02})
    block.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    return block


def file(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


FILES = {
    "jpeg": lambda: file(PICTURE, "JPEG", exif=exif()),
    "progressive jpeg": lambda: file(PICTURE, "JPEG", progressive=True, exif=exif()),
    "png": lambda: file(PICTURE, "PNG", exif=exif()),
    "palette png": lambda: file(PICTURE.quantize(16), "PNG", transparency=3),
    "16-bit png": lambda: file(Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 257), "PNG"),
    "tiff": lambda: file(PICTURE, "TIFF", exif=exif()),
    "lzw tiff": lambda: file(PICTURE, "TIFF", compression="tiff_lzw", exif=exif()),
    "jpeg tiff": lambda: file(PICTURE, "TIFF", compression="jpeg"),
    "deflate tiff": lambda: file(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    "fax tiff": lambda: file(PICTURE.convert("1"), "TIFF", compression="group4"),
    "float tiff": lambda: file(Image.fromarray(NOISE[:, :, 0].astype(np.float32) / 255), "TIFF"),
    "webp": lambda: file(PICTURE, "WEBP", exif=exif()),
    "animated webp": lambda: file(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90)]),
    "gif": lambda: file(PICTURE.quantize(16), "GIF"),
    "bmp": lambda: file(PICTURE, "BMP"),
    "ppm": lambda: file(PICTURE, "PPM"),
}
COUNT = -(-4000 // len(FILES)) if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 12


def peak():
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_a_picture_or_an_input_error(kind):
    data = FILES[kind]()
    assert to_pixels(data, SPEC).shape == (32, 32, 3)
    before = peak()

    for number, damaged in enumerate(mutations(data, COUNT, seed=list(FILES).index(kind))):
        begin = time.process_time()
        with contextlib.suppress(InputError):
            assert to_pixels(damaged, SPEC).shape == (32, 32, 3)
        assert time.process_time() - begin < SECONDS, number

    assert peak() - before < MEMORY

"""Gray of more than 8 bits: nothing turns black, and what has no known range is refused with the cure."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.decode import open_image
from ghostdeploy.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)


def file(kind, image):
    """The bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


GRAY = NOISE[:, :, 0]
WIDE = {
    "16-bit PNG": lambda: file("PNG", Image.fromarray(GRAY.astype(np.uint16) * 257)),
    "16-bit TIFF": lambda: file("TIFF", Image.fromarray(GRAY.astype(np.uint16) * 257)),
    "16-bit PGM": lambda: b"P5 48 64 65535\n" + (GRAY.astype(">u2") * 257).tobytes(),
    "16-bit values as 32-bit integers": lambda: file("TIFF", Image.fromarray(GRAY.astype(np.int32) * 257)),
    "32-bit integers": lambda: file("TIFF", Image.fromarray(GRAY.astype(np.int32))),
    "floats 0 to 1": lambda: file("TIFF", Image.fromarray(GRAY.astype(np.float32) / 255)),
    "floats 0 to 255": lambda: file("TIFF", Image.fromarray(GRAY.astype(np.float32))),
    "PIL floats": lambda: Image.fromarray(GRAY).convert("F"),
    "PIL integers": lambda: Image.fromarray(GRAY).convert("I"),
}


@pytest.mark.parametrize("kind", WIDE)
def test_wide_gray_keeps_its_brightness(kind):
    pixels = np.asarray(open_image(WIDE[kind]()))

    assert np.array_equal(pixels, np.repeat(GRAY[:, :, None], 3, axis=2))


def test_a_dark_16_bit_pgm_stays_dark():
    assert np.asarray(open_image(b"P5 2 2 65535\n" + bytes([0, 200] * 4))).max() == 1


def test_16_bit_colour_keeps_its_brightness():
    data = b"P6 48 64 65535\n" + (NOISE.astype(">u2") * 257).tobytes()

    assert np.array_equal(np.asarray(open_image(data)), NOISE)


def twelve_bit_tiff(values):
    """A TIFF of 12 bits per sample, uncompressed; each row of even width."""
    rows, columns = values.shape
    pairs = values.astype(np.uint32).reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    strip = packed.astype(np.uint8).tobytes()
    tags = [
        (256, columns),
        (257, rows),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, rows),
        (279, len(strip)),
    ]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip
    return head + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def test_white_of_12_bits_is_white():
    values = np.array([[0, 4095], [2048, 4095]])

    assert np.asarray(open_image(twelve_bit_tiff(values)))[:, :, 0].tolist() == [[0, 255], [128, 255]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 1.5]], np.float32), "floats from 0 to 1.5, expected 0 to 1"),
        (np.array([[-0.1, 1]], np.float32), "floats from -0.1 to 1"),
        (np.array([[0, 3000]], np.float32), "floats from 0 to 3000"),
        (np.array([[-5, 90]], np.int32), "integers from -5 to 90"),
        (np.array([[0, 70000]], np.int32), r"integers from 0 to 7e\+04, expected 0 to 255 or 0 to 65535"),
    ],
    ids=str,
)
def test_pixels_of_unknown_range_are_refused_with_the_cure(values, words):
    with pytest.raises(InputError, match=words) as caught:
        open_image(Image.fromarray(values))

    assert "8 bits" in caught.value.hint


@pytest.mark.parametrize(("dtype", "cure"), [("float32", "* 255"), ("uint16", "/ 257")])
def test_a_wide_array_is_refused_with_the_cure(dtype, cure):
    with pytest.raises(InputError, match=f"dtype {dtype}, expected uint8") as caught:
        open_image(np.zeros((3, 3, 3), dtype))

    assert cure in caught.value.hint

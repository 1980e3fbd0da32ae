"""`ghostdeploy run` on every kind of image file that apps meet, and on every file that must be refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.commands import assert_one_sentence, run

HEIGHT, WIDTH = 40, 56


@pytest.fixture
def bundle(tiny_bundle):
    return tiny_bundle("onnx")


def picture(channels=3):
    """Uint8 (H, W, channels): eight blocks of colour, so that JPEG and palettes keep it nearly."""
    coarse = np.random.default_rng(1).integers(0, 256, (2, 4, channels), np.uint8)
    return coarse.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 4, axis=1)


def gray():
    return picture(1)[:, :, 0]


def turned():
    """The picture as a phone held sideways stores it, and the tag that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(picture()).transpose(Image.Transpose.ROTATE_90), {"exif": exif}


def with_alpha(*levels):
    alpha = np.resize(np.array(levels, np.uint8), (HEIGHT, WIDTH, 1))
    return np.concatenate([picture(), alpha], axis=2)


KINDS = {
    "jpeg": ("jpg", lambda: (Image.fromarray(picture()), {"quality": 95, "subsampling": 0})),
    "progressive jpeg": ("jpg", lambda: (Image.fromarray(picture()), {"quality": 95, "progressive": True})),
    "png": ("png", lambda: (Image.fromarray(picture()), {})),
    "webp": ("webp", lambda: (Image.fromarray(picture()), {"quality": 95})),
    "lossless webp": ("webp", lambda: (Image.fromarray(picture()), {"lossless": True})),
    "rgba png": ("png", lambda: (Image.fromarray(with_alpha(0, 128, 255)), {})),
    "rgba webp": ("webp", lambda: (Image.fromarray(with_alpha(255)), {"lossless": True})),
    "palette png": ("png", lambda: (Image.fromarray(picture()).quantize(16), {})),
    "palette png with transparency": ("png", lambda: (Image.fromarray(picture()).quantize(16), {"transparency": 3})),
    "gif": ("gif", lambda: (Image.fromarray(picture()).quantize(16), {})),
    "exif orientation": ("jpg", lambda: (turned()[0], {"quality": 95, **turned()[1]})),
    "cmyk jpeg": ("jpg", lambda: (Image.fromarray(picture()).convert("CMYK"), {"quality": 95})),
}
GRAY = {
    "gray png": ("png", lambda: (Image.fromarray(gray()), {})),
    "gray jpeg": ("jpg", lambda: (Image.fromarray(gray()), {"quality": 95})),
    "gray with alpha": ("png", lambda: (Image.fromarray(np.dstack([gray(), 255 - gray()]), "LA"), {})),
    "16-bit png": ("png", lambda: (Image.fromarray(gray().astype(np.uint16) * 257), {})),
    "16-bit tiff": ("tif", lambda: (Image.fromarray(gray().astype(np.uint16) * 257), {})),
}


def probabilities(capsys, bundle, *paths):
    answer = run(capsys, "run", bundle, *paths, "--top", 10, "--json")
    assert answer.code == 0, answer.err
    return [{one["label"]: one["probability"] for one in image["classes"]} for image in answer.document]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", [*KINDS, *GRAY])
def test_an_image_is_classified_as_its_plain_pixels_are(bundle, capsys, tmp_path, kind):
    suffix, make = (KINDS | GRAY)[kind]
    image, options = make()
    image.save(tmp_path / f"given.{suffix}", **options)
    Image.fromarray(picture() if kind in KINDS else gray()).convert("RGB").save(tmp_path / "plain.png")

    ours, plain = probabilities(capsys, bundle, tmp_path / f"given.{suffix}", tmp_path / "plain.png")

    assert ours == pytest.approx(plain, abs=0.01)


def sixteen_bit_colour():
    """A PNG of 4×4 pixels with 16 bits per channel, which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + struct.pack(">3H", 65535, 32896, 0) * 4) * 4
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_per_channel_are_read_as_colour(bundle, capsys, tmp_path):
    (tmp_path / "deep.png").write_bytes(sixteen_bit_colour())
    Image.new("RGB", (4, 4), (255, 128, 0)).save(tmp_path / "plain.png")

    deep, plain = probabilities(capsys, bundle, tmp_path / "deep.png", tmp_path / "plain.png")

    assert deep == pytest.approx(plain, abs=0.01)


def bomb():
    """The header of a PNG of 50,000 × 50,000 pixels in a file of less than a hundred bytes."""
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + data + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def truncated(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bomb.png", lambda _: bomb(), ("2500 million pixels", "expected at most 64 million")),
        ("cut.jpg", lambda folder: truncated(folder, "jpg"), ("is damaged",)),
        ("cut.png", lambda folder: truncated(folder, "png"), ("is damaged",)),
        ("cut.webp", lambda folder: truncated(folder, "webp"), ("cut.webp",)),
        ("page.png", lambda _: b"<html>not found</html>", ("is not an image",)),
        ("empty.jpg", lambda _: b"", ("is not an image",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_must_be_refused_is_one_sentence_with_its_name(bundle, capsys, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content(tmp_path))

    assert_one_sentence(run(capsys, "run", bundle, tmp_path / name), 3, name, *words)

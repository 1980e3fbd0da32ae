"""From image file to model input: geometry by hand, every image mode, every damaged file."""

from __future__ import annotations

import io
import struct
import zlib

import msgspec
import numpy as np
import pytest
from PIL import Image

from ghostdeploy.decode import MAX_PIXELS, open_image
from ghostdeploy.errors import InputError
from ghostdeploy.preprocess import Preprocess, normalise, prepare, to_pixels

SMALL = Preprocess(size=4, crop_fraction=1.0, interpolation="bilinear")


def gradient(height, width):
    """Red is the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def test_without_resize_the_centre_is_cut_out():
    pixels = to_pixels(gradient(4, 10), SMALL)

    assert pixels.shape == (4, 4, 3)
    assert pixels[0, :, 1].tolist() == [3, 4, 5, 6]
    assert pixels[:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("width", "left"), [(5, 0), (6, 1), (7, 2), (9, 2), (11, 4)])
def test_an_odd_margin_is_rounded_half_to_even_as_torchvision_does(width, left):
    assert to_pixels(gradient(4, width), SMALL)[0, 0, 1] == left


@pytest.mark.parametrize(
    ("size", "resized"), [((151, 100), (386, 256)), ((100, 151), (256, 386)), ((7, 7), (256, 256))]
)
def test_the_short_side_is_resized_and_the_long_one_truncated(monkeypatch, size, resized):
    asked = []
    original = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, how: asked.append(to) or original(self, to, how))

    pixels = to_pixels(Image.new("RGB", size), Preprocess(size=224, crop_fraction=0.875))

    assert asked == [resized]  # int(256 · 1.51) = 386, where rounding would give 387
    assert pixels.shape == (224, 224, 3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_plain_colour_stays_that_colour_through_the_resize(interpolation):
    image = np.full((37, 91, 3), (10, 130, 250), np.uint8)

    pixels = to_pixels(image, Preprocess(size=16, crop_fraction=0.875, interpolation=interpolation))

    assert (pixels == (10, 130, 250)).all()


def test_halving_bilinearly_is_the_antialiased_triangle_filter():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 240

    row = to_pixels(image, SMALL)[2, :, 0].astype(int)

    # Weights 1, 3, 3, 1 over 8: the pixel left of the edge takes one bright column, the right one loses one.
    assert row.tolist() == [0, 30, 210, 240]


def test_normalisation_is_the_formula():
    spec = Preprocess(size=1, crop_fraction=1.0, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))

    out = normalise(np.array([[[[255, 0, 51]]]], np.uint8), spec)

    assert out.dtype == np.float32
    assert out.reshape(-1).tolist() == pytest.approx([1.0, -1.0, 0.2])
    assert out.shape == (1, 3, 1, 1)


def test_prepare_gives_contiguous_nchw_floats_or_nhwc_pixels():
    images = [gradient(6, 5), gradient(9, 4)]

    floats = prepare(images, SMALL)
    pixels = prepare(images, msgspec.structs.replace(SMALL, layout="nhwc"))

    assert (floats.shape, floats.dtype.name, floats.flags.c_contiguous) == ((2, 3, 4, 4), "float32", True)
    assert (pixels.shape, pixels.dtype.name) == ((2, 4, 4, 3), "uint8")
    assert np.array_equal(normalise(pixels, SMALL), floats)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation):
    upright = Image.fromarray(gradient(6, 9) * 20)
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", stored, exif=exif)

    assert np.array_equal(np.asarray(open_image(path)), np.asarray(upright))


def test_gray_becomes_three_equal_channels():
    pixels = np.asarray(open_image(Image.fromarray(np.full((2, 2), 77, np.uint8))))

    assert (pixels == 77).all()
    assert pixels.shape == (2, 2, 3)


def test_alpha_is_dropped():
    rgba = np.dstack([gradient(3, 3), np.zeros((3, 3), np.uint8)])

    assert np.array_equal(np.asarray(open_image(rgba)), gradient(3, 3))
    assert np.array_equal(np.asarray(open_image(Image.fromarray(rgba))), gradient(3, 3))


def test_cmyk_is_converted(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)

    red, green, blue = np.asarray(open_image(path), int).reshape(-1, 3).mean(axis=0)

    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("mode", ["1", "P", "LA", "PA", "RGBX", "YCbCr", "HSV", "LAB", "I", "F"])
def test_every_mode_of_pillow_becomes_rgb(mode):
    assert open_image(Image.new(mode, (5, 5))).mode == "RGB"


def test_a_palette_gives_its_colours(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 12, 34, 56] + [0] * 762)

    assert np.asarray(open_image(saved(tmp_path / "a.gif", palette)))[0, 0].tolist() == [12, 34, 56]


def test_a_palette_with_transparency_gives_its_colours(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 12, 34, 56] + [0] * 762)

    path = saved(tmp_path / "a.png", palette, transparency=b"\x00\x80")

    assert np.asarray(open_image(path))[0, 0].tolist() == [12, 34, 56]


def test_sixteen_bit_gray_keeps_its_scale(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(values))

    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.full((4, 4), 200, np.uint16)))

    assert np.asarray(open_image(path)).max() == 1


def test_float_gray_with_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        open_image(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_a_truncated_jpeg_is_refused_and_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / "cut.jpg", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(InputError, match=r"cut\.jpg is damaged"):
        open_image(path)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif", "webp"])
def test_a_truncated_file_of_any_format_is_refused_and_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"cut.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])

    with pytest.raises(InputError, match=rf"cut\.{suffix}"):
        open_image(path)


@pytest.mark.parametrize("content", [b"just text", b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"], ids=repr)
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)

    with pytest.raises(InputError, match=r"a\.jpg"):
        open_image(tmp_path / "a.jpg")


def png_header(width, height):
    """Returns a PNG that promises width × height pixels in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (8001, 8001), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    assert width * height > MAX_PIXELS

    with pytest.raises(InputError, match=r"bomb\.png .*expected at most 64"):
        open_image(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        open_image(tmp_path)


def test_a_path_with_a_zero_byte_is_refused():
    with pytest.raises(InputError):
        open_image("a\0.png")


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 1), (3, 3, 3), (3, 3, 4), (1, 1)], ids=str)
def test_arrays_of_an_image_shape_are_accepted(shape):
    assert open_image(np.zeros(shape, np.uint8)).mode == "RGB"


@pytest.mark.parametrize("shape", [(), (3,), (3, 3, 2), (3, 3, 5), (1, 3, 3, 3), (0, 3, 3), (3, 0), (3, 0, 1)], ids=str)
def test_arrays_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match="image array has shape"):
        open_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16", "bool"])
def test_arrays_of_another_dtype_are_refused(dtype):
    with pytest.raises(InputError, match=f"dtype {dtype}, expected uint8"):
        open_image(np.zeros((3, 3, 3), dtype))


def test_an_array_that_is_not_contiguous_is_read_right():
    turned = gradient(4, 6)[::-1, ::2]

    assert np.array_equal(np.asarray(open_image(turned)), turned)


def test_the_given_image_and_array_are_not_changed():
    array = gradient(9, 9)
    image = Image.fromarray(array)
    before = array.copy()

    prepare([array, image], SMALL)

    assert np.array_equal(array, before)
    assert (image.mode, image.size) == ("RGB", (9, 9))
    assert np.array_equal(np.asarray(image), before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 5000)], ids=str)
def test_extreme_shapes_still_give_a_full_crop(shape):
    assert to_pixels(np.zeros(shape, np.uint8), Preprocess(size=8, crop_fraction=0.875)).shape == (8, 8, 3)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)], ids=str)
def test_a_strip_that_would_grow_to_gigabytes_is_refused(size):
    with pytest.raises(InputError, match=f"{size[0]}×{size[1]} pixels is too long"):
        to_pixels(Image.new("L", size), Preprocess(size=224))


def test_an_image_without_pixels_is_refused():
    with pytest.raises(InputError, match="0×5 pixels"):
        to_pixels(Image.new("RGB", (0, 5)), SMALL)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 8193}, "size is 8193"),
        ({"crop_fraction": 0.05}, "crop_fraction is"),
        ({"crop_fraction": 1.5}, "crop_fraction is"),
        ({"std": (1.0, 0.0, 1.0)}, "std is"),
        ({"std": (1.0, -1.0, 1.0)}, "std is"),
        ({"std": (1.0, float("nan"), 1.0)}, "std is"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "mean is"),
        ({"mean": (float("inf"), 0.0, 0.0)}, "mean is"),
        ({"crop_fraction": float("nan")}, "crop_fraction is"),
        ({"size": "3"}, "size is '3', expected int \\| array, got str"),
        ({"size": None}, "size is None, expected int"),
        ({"std": 1.0}, "std is 1.0, expected array"),
        ({"mean": (0.0, 0.0)}, "mean is .*, expected array of length 3"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest', "),
    ],
    ids=str,
)
def test_a_record_that_no_image_fits_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Preprocess(**fields)


def test_an_image_inside_an_open_file_is_as_good_as_its_path():
    stream = io.BytesIO()
    Image.fromarray(gradient(4, 4)).save(stream, "PNG")

    assert np.array_equal(np.asarray(open_image(Image.open(stream))), gradient(4, 4))

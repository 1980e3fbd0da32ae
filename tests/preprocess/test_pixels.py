"""Pixels of every way to resize, colour and unit, against what OpenCV, Pillow and timm make of the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.preprocess import Preprocess, as_input, prepare, to_pixels
from ghostdeploy.preprocess.corner import resize_from_corner
from tests.transforms.timm_transforms import CASES, picture

BOXED = {"resize": "letterbox", "crop_fraction": 1.0}
STORED = Path(__file__).parents[1] / "transforms" / "timm_transforms.npz"


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height, width):
    return np.asarray(Image.fromarray(noise(7, 9)).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_pixels_are_timm_s_own(number):
    case = CASES[number]
    with np.load(STORED, allow_pickle=False) as stored:
        theirs = stored[str(number)]

    assert np.array_equal(to_pixels(picture(*case.image), Preprocess(**case.spec)), theirs)


def test_sampling_from_the_corner_is_opencv_s_warp():
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed here")
    rng = np.random.default_rng(1)
    for height, width, rows, columns in rng.integers(1, 200, (60, 4)).tolist():
        image = noise(height, width)
        theirs = cv2.warpPerspective(image, np.diag([columns / width, rows / height, 1.0]), dsize=(columns, rows))

        ours = resize_from_corner(image, rows, columns)

        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert (ours != theirs).mean() < 0.05


def test_sampling_from_the_corner_takes_every_second_pixel_of_twice_as_many():
    image = noise(10, 12)
    spec = Preprocess(size=(5, 6), resize="stretch", crop_fraction=1.0, interpolation="bilinear", sampling="corner")

    assert np.array_equal(to_pixels(image, spec), image[::2, ::2])


def test_bgr_is_rgb_in_the_other_order_and_mean_and_std_go_with_it():
    image, size = smooth(40, 50), {"size": 32, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    rgb, bgr = Preprocess(**size), Preprocess(**size, color="bgr")

    assert np.array_equal(to_pixels(image, bgr), to_pixels(image, rgb)[:, :, ::-1])
    first = prepare([image], bgr)[0, 0]  # blue, with the first mean
    assert first == pytest.approx((to_pixels(image, rgb)[:, :, 2] / 255 - 0.1) / 0.4, abs=1e-6)


def test_gray_is_pillow_s_luma_in_one_channel():
    image = smooth(40, 50)
    spec = Preprocess(size=40, crop_fraction=1.0, color="gray", channels=1, mean=(0.5,), std=(0.25,))

    pixels = to_pixels(image, spec)

    assert np.array_equal(pixels[:, :, 0], np.asarray(Image.fromarray(image).convert("L"))[:, 5:45])
    assert prepare([image], spec).shape == (1, 1, 40, 40)
    gray = np.asarray(Image.fromarray(image).convert("L"))
    assert np.array_equal(to_pixels(gray, spec), pixels)


def test_both_units_give_the_same_input():
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    ones = Preprocess(size=24, mean=tuple(m / 255 for m in mean), std=tuple(s / 255 for s in std))
    pixels = Preprocess(size=24, mean=mean, std=std, unit="0-255")

    assert prepare([smooth(40, 50)], pixels) == pytest.approx(prepare([smooth(40, 50)], ones), abs=2e-6)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("anchor", ["center", "corner"])
def test_a_letterbox_is_the_resized_image_in_its_padding(color, anchor):
    image, spec = smooth(30, 61), Preprocess(size=48, **BOXED, pad=(1, 2, 3), color=color, anchor=anchor)

    pixels = to_pixels(image, spec)

    inner = np.asarray(Image.fromarray(image).resize((48, 24), Image.Resampling.BICUBIC))
    top = 12 if anchor == "center" else 0
    assert np.array_equal(pixels[top : top + 24], inner if color == "rgb" else inner[:, :, ::-1])
    assert (pixels[:top] == (1, 2, 3)).all()
    assert (pixels[top + 24 :] == (1, 2, 3)).all()


def test_an_odd_pixel_of_padding_is_behind_the_image():
    pixels = to_pixels(np.full((10, 9, 3), 200, np.uint8), Preprocess(size=10, **BOXED, pad=7))

    assert pixels[0, :, 0].tolist() == [200] * 9 + [7]


def test_small_images_are_only_padded_where_they_are_not_to_grow():
    image = noise(6, 8)

    pixels = to_pixels(image, Preprocess(size=16, **BOXED, pad=9, upscale=False))

    assert np.array_equal(pixels[5:11, 4:12], image)
    assert (pixels[:5] == 9).all()


def test_padding_in_the_network_s_space_is_within_half_a_step_of_it():
    spec = Preprocess(size=16, **BOXED, pad=0, pad_space="normalized")

    corner = prepare([noise(4, 16)], spec)[0, :, 0, 0]

    assert (np.abs(corner) <= 0.5 / 255 / np.array(spec.std)).all()


def test_layouts_and_pixel_inputs_have_the_shape_of_the_record():
    image, gray = noise(20, 30), {"color": "gray", "channels": 1, "mean": (0.5,), "std": (0.5,)}

    for fields, channels in (({}, 3), (gray, 1)):
        spec = {"size": (12, 20), **fields}
        assert prepare([image], Preprocess(**spec)).shape == (1, channels, 12, 20)
        assert prepare([image], Preprocess(**spec, layout="nhwc")).shape == (1, 12, 20, channels)
        floats = prepare([image], Preprocess(**spec, layout="nhwc", dtype="float32"))
        assert np.array_equal(floats.transpose(0, 3, 1, 2), prepare([image], Preprocess(**spec)))
        assert as_input(to_pixels(image, Preprocess(**spec))[None], Preprocess(**spec, layout="nhwc")).dtype == np.uint8

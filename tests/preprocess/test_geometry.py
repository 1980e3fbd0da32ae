"""Where an image lands: sizes of the peers' own transforms, points that come back, pixels where they are said to be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ghostdeploy.preprocess import Preprocess, geometry, to_pixels
from ghostdeploy.preprocess.geometry import Placement, place

BOXED = {"resize": "letterbox", "crop_fraction": 1.0, "interpolation": "bilinear"}
WAYS = {
    "crop": {"crop_fraction": 0.875},
    "crop of a wide one": {"size": (96, 160), "crop_fraction": 0.9, "rounding": "floor"},
    "stretch": {"resize": "stretch", "crop_fraction": 1.0},
    "letterbox": BOXED,
    "letterbox at the corner": {**BOXED, "anchor": "corner", "rounding": "floor"},
    "letterbox of small images": {**BOXED, "upscale": False, "rounding": "ceil"},
    "wide letterbox": {**BOXED, "size": (192, 320)},
    "stretch from the corner": {"resize": "stretch", "crop_fraction": 1.0, "sampling": "corner"},
    "letterbox from the corner": {**BOXED, "anchor": "corner", "sampling": "corner"},
}
THIN = [(1, 3000), (3000, 1), (1, 1), (2, 4096), (3000, 2000), (7, 5)]


def spec_of(way):
    return Preprocess(**{"size": 128, "interpolation": "bilinear", **WAYS[way]})


def sizes(count, seed):
    return THIN + np.random.default_rng(seed).integers(1, 2000, (count, 2)).tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_box_comes_back_within_half_a_pixel_from_any_size(way):
    rng = np.random.default_rng(1)
    for height, width in sizes(500, seed=0):
        map_ = geometry(spec_of(way), (height, width))
        box = rng.uniform(0, 1, (2, 2)) * (width, height)

        there = map_.to_network(box)
        back = map_.to_image(there.astype(np.float32))  # as a network gives it

        assert np.abs(back - box).max() <= 0.5, (height, width)
        if spec_of(way).resize != "crop":
            rows, columns = spec_of(way).sides
            assert (there >= 0).all(), (height, width)
            assert (there <= (columns, rows)).all(), (height, width)


def ramp(height, width, center, axis):
    """A picture whose value is two per pixel along an axis, 127 at its centre, and flat where it would overflow."""
    place_ = np.arange(height if axis == 0 else width) + 0.5
    line = np.clip(np.rint(127 + 2 * (place_ - center)), 0, 255).astype(np.uint8)
    plane = np.broadcast_to(line[:, None] if axis == 0 else line, (height, width))
    return np.repeat(plane[..., None], 3, axis=2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_pixels_are_where_the_geometry_says(way, axis):
    """A ramp is kept by every linear filter, so a pixel's value tells which place of the image it shows."""
    rng, spec, seen = np.random.default_rng(2), spec_of(way), 0
    half = 0.0 if spec.sampling == "corner" else 0.5  # from a pixel's number to the point that it shows
    for height, width in sizes(40, seed=3):
        placed = place(spec, height, width)
        if placed.height * placed.width > 10_000_000:
            continue  # a crop of a strip, too long to be resized
        length, map_ = (height, width)[axis], geometry(spec, (height, width))
        center = rng.uniform(0.3, 0.7) * length
        pixels = to_pixels(ramp(height, width, center, axis), spec)[:, :, 0]
        middle = (0, 0) if spec.sampling == "corner" else (width / 2, height / 2)  # behind the last pixel it is black
        across = int(map_.to_network(middle)[axis])
        line = pixels[:, across] if axis == 0 else pixels[across]
        points = np.repeat(np.arange(len(line))[:, None] + half, 2, axis=1)
        shown = map_.to_image(points)[:, 1 - axis] + 0.5 - half
        expected, scale = 127 + 2 * (shown - center), (map_.scale_y, map_.scale_x)[axis]
        reach = max(1.0, 1 / scale) + 1  # of the filter, in pixels of the image
        kept = (shown > reach) & (shown < length - reach)  # away from the image's ends, and from those of the ramp
        kept &= (expected > 2 * reach) & (expected < 255 - 2 * reach)
        seen += bool(kept.any())
        assert (np.abs(line[kept] - expected[kept]) <= 2.0).all(), (height, width)  # two steps are one pixel
    assert seen > 20


@pytest.mark.parametrize("size", [96, 128, 160, 192, 224, 227, 240, 256, 288, 299, 300, 320, 331, 384, 448])
@pytest.mark.parametrize("fraction", [0.8, 0.875, 0.9, 0.904, 0.91, 0.922, 0.935, 0.94, 0.949, 0.95, 0.965, 0.98, 1.0])
def test_timm_s_resize_is_floor_and_torchvision_s_recipes_round(size, fraction):
    for rounding, expected in (("floor", math.floor(size / fraction)), ("round", round(size / fraction))):
        spec = Preprocess(size=size, crop_fraction=fraction, rounding=rounding)
        for height, width in ((500, 375), (375, 500), (expected, 1000), (100, 101)):
            short, long = sorted((height, width))
            placed = place(spec, height, width)
            assert min(placed.height, placed.width) == expected
            assert max(placed.height, placed.width) == (int(expected * long / short) if short != expected else long)
            assert (placed.top, placed.left) == (
                -round((placed.height - size) / 2.0),
                -round((placed.width - size) / 2.0),
            )


def test_a_crop_of_0_95_at_224_is_timm_s_size():
    assert place(Preprocess(crop_fraction=0.95, rounding="floor"), 500, 500).height == 235
    assert place(Preprocess(crop_fraction=0.95), 500, 500).height == 236


def yolov5(height, width, rows, columns, *, scaleup):
    """The letterbox of YOLOv5, by its formulas."""
    ratio = min(rows / height, columns / width)
    ratio = ratio if scaleup else min(ratio, 1.0)
    new_width, new_height = round(width * ratio), round(height * ratio)
    dw, dh = (columns - new_width) / 2, (rows - new_height) / 2
    assert round(dw - 0.1) + new_width + round(dw + 0.1) == columns
    return Placement(new_height, new_width, round(dh - 0.1), round(dw - 0.1))


def nanodet(height, width, rows, columns):
    """`resize_uniform` of NanoDet's C++ demo, by its formulas."""
    source, target = width / height, columns / rows
    new_width, new_height = columns, rows
    if source > target:
        new_height = math.floor((columns * 1.0 / width) * height)
    elif source < target:
        new_width = math.floor((rows * 1.0 / height) * width)
    return Placement(new_height, new_width, (rows - new_height) // 2, (columns - new_width) // 2)


@pytest.mark.parametrize(("rows", "columns"), [(640, 640), (416, 416), (192, 320), (321, 323)])
def test_letterboxes_are_those_of_their_peers(rows, columns):
    for height, width in np.random.default_rng(4).integers(8, 3000, (2000, 2)).tolist():
        for upscale in (True, False):
            ours = place(Preprocess(size=(rows, columns), **BOXED, upscale=upscale), height, width)
            if min(ours.height, ours.width) >= 1 and max(height, width) < 60 * min(height, width):
                assert ours == yolov5(height, width, rows, columns, scaleup=upscale), (height, width)
        ours = place(Preprocess(size=(rows, columns), **BOXED, rounding="floor"), height, width)
        if max(height, width) < 60 * min(height, width):
            assert ours == nanodet(height, width, rows, columns), (height, width)


@pytest.mark.parametrize("rounding", ["round", "floor", "ceil"])
@pytest.mark.parametrize("anchor", ["center", "corner"])
def test_a_thin_image_keeps_a_pixel_and_stays_inside(rounding, anchor):
    for height, width in [(1, 3000), (3000, 1), (2999, 3), (1, 1), (60000, 1)]:
        placed = place(Preprocess(size=(64, 96), **BOXED, rounding=rounding, anchor=anchor), height, width)
        assert 1 <= placed.height <= 64 - placed.top
        assert 1 <= placed.width <= 96 - placed.left


def test_a_whole_number_is_not_rounded_up_for_what_floats_add():
    placed = place(Preprocess(size=14, **BOXED, rounding="ceil"), 25, 50)

    assert 25 * (14 / 50) > 7
    assert (placed.height, placed.width) == (7, 14)


def test_the_size_is_height_before_width():
    assert to_pixels(np.zeros((30, 40, 3), np.uint8), Preprocess(size=(24, 48))).shape == (24, 48, 3)
    map_ = geometry(Preprocess(size=(24, 48), resize="stretch", crop_fraction=1.0), (12, 12))
    assert (map_.scale_x, map_.scale_y) == (4, 2)
    assert map_.to_network([[1, 1]]).tolist() == [[4, 2]]

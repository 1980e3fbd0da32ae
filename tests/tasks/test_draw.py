"""Pictures show what was found, legibly at any size, and nothing outside them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.tasks import drawing
from ghostdeploy.tasks.detect.draw import draw as draw_boxes
from ghostdeploy.tasks.detect.suppression import Detections
from ghostdeploy.tasks.landmarks.draw import draw as draw_points
from ghostdeploy.tasks.segment.draw import draw as draw_mask

SIZES = [(60, 60), (60, 3000), (3000, 60), (640, 480), (1200, 1600)]


def gray(size):
    return Image.new("RGB", size, (128, 128, 128))


def painted(image, paint):
    """Where a picture has a colour, as top, bottom, left, right; None where it has not."""
    found = (np.asarray(image) == paint).all(axis=2)
    if not found.any():
        return None
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return rows[0], rows[-1], columns[0], columns[-1]


def luminance(paint):
    return np.array(paint, float) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("size", [*SIZES, (6000, 4000)])
def test_labels_lie_inside_the_picture_in_letters_that_grow_with_it(size):
    """The box begins outside at the left and the top: its label is moved in, and has its whole height."""
    box = np.array([[-20.0, -9, size[0] / 3, size[1] / 3]])
    picture = draw_boxes(gray(size), Detections(box, np.array([0.87]), np.array([3])), ["", "", "", "ankle boot"])

    top, _, left, _ = painted(picture.crop((0, 0, 400, 400)), drawing.colour(3))
    letters = drawing.scale(size).letters
    height = drawing.Labels(gray(size)).height
    assert (top, left) == (0, 0)
    assert letters >= max(10, 0.024 * np.sqrt(size[0] * size[1]))
    assert height >= 0.8 * letters
    assert (np.asarray(picture)[:height, 0] == drawing.colour(3)).all()


@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_label_at_any_corner_keeps_its_size(corner):
    def extent(x, y):
        image = gray((200, 150))
        drawing.Labels(image).put("ankle boot", " 0.87", [(x, y)], (255, 0, 0))
        return painted(image, (255, 0, 0))

    at, middle = extent(corner[0] * 250 - 25, corner[1] * 200 - 25), extent(50, 80)

    assert (at[1] - at[0], at[3] - at[2]) == (middle[1] - middle[0], middle[3] - middle[2])


def test_a_long_name_is_cut_and_its_score_is_not():
    labels = drawing.Labels(gray((60, 60)))

    assert labels._fitted("a very long name of some class", " 0.93").endswith("… 0.93")
    assert labels.width(labels._fitted("a very long name of some class", " 0.93")) <= 60
    assert labels._fitted("cat", " 0.93") == "cat 0.93"


def test_labels_of_neighbours_do_not_hide_each_other():
    places = [(100, 100), (100, 220), (100, 115), (100, 201)]
    labels = drawing.Labels(gray((400, 300)))
    for name in ("one", "two", "three"):
        labels.put(name, " 0.9", places, (255, 0, 0))

    assert len(labels._taken) == 3
    assert all(drawing._shared(a, b) == 0 for i, a in enumerate(labels._taken) for b in labels._taken[:i])


def test_labels_never_cover_more_than_half_of_the_picture_and_the_best_come_first():
    labels = drawing.Labels(gray((60, 60)))
    for number in range(20):
        labels.put(f"class {number}", " 0.90", [(0, 13 * number)], drawing.colour(number))

    assert 1 <= len(labels._taken) < 5
    assert sum(map(drawing._area, labels._taken)) <= 1800


@pytest.mark.parametrize("index", range(40))
def test_text_stands_out_from_every_class_colour(index):
    paint = drawing.colour(index)

    assert abs(luminance(paint) - luminance(drawing.contrast(paint))) > 60
    assert paint not in [drawing.colour(other) for other in range(index)]


def test_boxes_are_drawn_where_they_are_and_the_best_is_on_top():
    boxes = np.array([[100.4, 50.6, 300, 200], [100, 51, 300, 200]])
    picture = draw_boxes(gray((640, 480)), Detections(boxes, np.array([0.9, 0.8]), np.array([1, 2])))

    _, bottom, left, right = painted(picture, drawing.colour(1))
    assert (bottom, left, right) == (200, 100, 300)
    assert painted(picture.crop((0, 51, 640, 200)), drawing.colour(2)) is None  # its label is below
    assert np.asarray(picture)[300:].std() == 0


def test_a_box_outside_the_picture_and_no_box_at_all_are_survived():
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    outside = Detections(np.array([[700.0, 500, 800, 600], [10, 10, 5, 5]]), np.array([0.5, 0.4]), np.array([0, 7]))

    assert np.asarray(draw_boxes(gray((640, 480)), nothing)).std() == 0
    assert draw_boxes(gray((640, 480)), outside).size == (640, 480)


def test_names_cannot_steer_and_pictures_stay_as_they_are():
    image = Image.new("L", (100, 80), 9)

    draw_boxes(image, Detections(np.array([[1.0, 1, 50, 50]]), np.ones(1), np.zeros(1, int)), ["a\nb\x1b[2J"])

    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[9] * 100] * 80


@pytest.mark.parametrize("size", SIZES)
def test_points_are_dots_around_their_place(size):
    x, y = size[0] // 2, size[1] // 2
    picture = draw_points(gray(size), np.array([[x, y], [-50, 3]], float))

    top, bottom, left, right = painted(picture, drawing.LIGHT)
    assert top <= y <= bottom
    assert left <= x <= right
    assert abs((top + bottom) / 2 - y) <= 1
    assert right - left <= max(3, 2 * drawing.scale(size).dot + 1)
    rim = painted(picture, drawing.DARK)
    assert rim[0] < top
    assert rim[3] > right


def test_a_mask_colours_its_pixels_and_leaves_the_rest():
    mask = np.zeros((480, 640), np.uint8)
    mask[100:300, 200:500] = 3
    mask[400:] = 255
    picture = np.asarray(draw_mask(gray((640, 480)), mask, ["", "", "", "bag"]))

    changed = (picture != 128).any(axis=2)
    np.testing.assert_array_equal(changed, mask == 3)
    mixed = 0.45 * np.array(drawing.colour(3)) + 0.55 * 128
    np.testing.assert_allclose(picture[120, 220], mixed, atol=2)
    assert picture[100, 300].tolist() == picture[299, 300].tolist() == list(drawing.colour(3))
    whole = np.asarray(draw_mask(gray((640, 480)), mask, background=None))
    assert (whole[mask == 0] != 128).any(axis=1).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_of_any_size_is_drawn(size):
    mask = (np.indices(size[::-1]).sum(axis=0) % 97 < 40).astype(np.uint8)

    assert draw_mask(gray(size), mask).size == size

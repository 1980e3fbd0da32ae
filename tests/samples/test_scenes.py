"""Scenes are drawn from seeds, their labels are exact, and what ships is what the generator draws."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.samples.scenes.compose import BORDER, CROP, SCENE, crop, scene
from ghostdeploy.samples.scenes.items import MIRRORED, Items, filled, points_of
from ghostdeploy.samples.scenes.make_sets import SEED, SPLITS, drawn_pairs, shipped_items
from ghostdeploy.samples.scenes.render import Pose, backgrounds, covered, decoded, generator
from ghostdeploy.tasks.detect.data import read_coco
from ghostdeploy.tasks.embed.data import read_pairs
from ghostdeploy.tasks.landmarks.data import read_points
from ghostdeploy.tasks.segment.data import read_masks

DIGEST = """
import hashlib
from ghostdeploy.samples.scenes.compose import crop, scene
from ghostdeploy.samples.scenes.make_sets import shipped_items
from ghostdeploy.samples.scenes.render import backgrounds, generator
items, pictures = shipped_items(evaluation=True), backgrounds(evaluation=True)
one, two = scene(generator(0, 0, 7), items, pictures), crop(generator(0, 3, 7), items, 5, pictures)
print(hashlib.sha256(one.jpeg + one.boxes.tobytes() + one.mask.tobytes() + two.jpeg + two.points.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def items():
    return shipped_items(evaluation=True)


@pytest.fixture(scope="module")
def pictures():
    return backgrounds(evaluation=True)


def test_a_draw_is_a_function_of_its_seed_in_any_process(items, pictures):
    outside = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout.strip()

    def digest(seed, order):
        drawn = {number: scene(generator(seed, 0, number), items, pictures) for number in order}
        one, two = drawn[7], crop(generator(seed, 3, 7), items, 5, pictures)
        return hashlib.sha256(one.jpeg + one.boxes.tobytes() + one.mask.tobytes() + two.jpeg + two.points.tobytes())

    assert digest(0, (7,)).hexdigest() == digest(0, (3, 7)).hexdigest() == outside
    assert digest(1, (7,)).hexdigest() != outside


@pytest.mark.parametrize("number", [0, 57, 199])
def test_what_ships_is_what_the_generator_draws(number, items, pictures):
    drawn = scene(generator(SEED, SPLITS["scenes"], number), items, pictures)
    data = read_coco(samples.data_path("scenes/instances.json"))
    here = data.truth.boxes.image == number

    shipped = np.asarray(Image.open(data.images[number]), np.int16)
    assert np.abs(shipped - decoded(drawn.jpeg)).mean() < 1  # another version of a JPEG library may round differently
    corners = data.truth.boxes.xywh[here]
    assert np.array_equal(np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]]), drawn.boxes)
    assert np.array_equal(data.truth.boxes.label[here], drawn.labels)
    assert np.array_equal(data.truth.crowd[here], drawn.crowd)
    assert np.array_equal(read_masks(samples.data_path("scenes")).mask(number), drawn.mask)


def test_the_scenes_have_boxes_of_all_classes_some_crowds_and_masks():
    data, masks = read_coco(samples.data_path("scenes/instances.json")), read_masks(samples.data_path("scenes"))

    assert len(data.images) == len(masks.images) == 200
    assert {tuple(size) for size in data.sizes.tolist()} == {SCENE}
    assert np.bincount(data.truth.boxes.label).min() >= 40
    assert data.truth.crowd.sum() >= 3
    assert masks.values == {*range(11), BORDER}


def test_every_box_is_filled_with_its_class_in_the_mask():
    data, masks = read_coco(samples.data_path("scenes/instances.json")), read_masks(samples.data_path("scenes"))
    boxes = data.truth.boxes

    for image, label, xywh in zip(boxes.image, boxes.label, boxes.xywh.astype(int), strict=True):
        x, y, width, height = xywh
        part = masks.mask(image)[y : y + height, x : x + width]
        own = part == label + 1
        assert own.any(1)[1:-1].mean() > 0.5
        assert own.any(0)[1:-1].mean() > 0.5


def test_the_crops_have_points_and_pairs():
    points, pairs = read_points(samples.data_path("crops/landmarks.npz")), read_pairs(samples.data_path("crops"))

    assert points.points.shape == (200, 8, 2)
    assert {tuple(size) for size in points.sizes.tolist()} == {CROP}
    assert points.points.min() > -4
    assert points.points.max() < 68
    assert len(pairs.images) == 600
    assert np.bincount(pairs.same).tolist() == [1500, 1500]
    for (a, b), same in zip(pairs.pairs, pairs.same, strict=True):
        assert (pairs.images[a].stem[:2] == pairs.images[b].stem[:2]) == same
        assert a != b


def test_pairs_are_drawn_once_and_half_of_the_others_are_of_one_class():
    classes = [number % 5 for number in range(20)]

    rows = drawn_pairs(classes, 200)

    others = [(int(a[:2]), int(b[:2])) for a, b, same in rows if not same]
    assert len(set(rows)) == 400
    assert sum(classes[a] == classes[b] for a, b in others) >= 100
    assert rows == drawn_pairs(classes, 200)


def test_no_evaluation_image_shares_item_or_photograph_with_calibration():
    evaluation, calibration = (shipped_items(evaluation=side) for side in (True, False))
    photos = [{one.tobytes() for one in backgrounds(evaluation=side)} for side in (True, False)]

    assert not {one.tobytes() for one in evaluation.gray} & {one.tobytes() for one in calibration.gray}
    assert not photos[0] & photos[1]
    assert [len(side) for side in photos] == [4, 8]


def square():
    """Returns an item of one filled square, columns 8 to 19 and rows 6 to 17."""
    gray = np.zeros((1, 28, 28), np.uint8)
    gray[0, 6:18, 8:20] = 200
    return Items(gray, gray > 0, np.zeros(1, np.int64))


def test_an_item_lies_where_its_pose_says():
    item = square()
    turn = np.deg2rad(90)
    matrix = 2 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    where = Pose(matrix, np.array([14.0, 12.0]), np.array([50.0, 40.0]))

    owned = covered(item.masks[0], where, (80, 100))

    y, x = np.nonzero(owned)
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == (38, 62, 28, 52)
    assert np.allclose(where.place(np.array([[8.0, 6.0]])), [[62.0, 28.0]])


def test_items_at_the_edge_are_cut():
    where = Pose(2 * np.eye(2), np.array([14.0, 12.0]), np.array([0.0, 10.0]))

    assert covered(square().masks[0], where, (30, 30)).sum() == 12 * 22


def test_holes_are_filled_and_bays_are_not():
    mask = np.zeros((2, 7, 7), bool)
    mask[:, 1:6, 1:6] = True
    mask[0, 3, 3] = False
    mask[1, 3, 3:] = False

    assert filled(mask).sum((1, 2)).tolist() == [25, 22]


def test_the_points_of_a_rectangle_are_its_corners_and_sides():
    mask = np.zeros((28, 28), bool)
    mask[4:24, 9:19] = True

    assert points_of(mask).tolist() == [
        [9.5, 5.5],
        [18.5, 5.5],
        [9.5, 14.0],
        [18.5, 14.0],
        [9.5, 22.5],
        [18.5, 22.5],
        [9.5, 23.5],
        [18.5, 23.5],
    ]


def test_a_mirrored_item_has_mirrored_points(items):
    for mask in items.masks[:50]:
        mirrored = points_of(mask[:, ::-1])[list(MIRRORED)]
        np.testing.assert_allclose(mirrored * [-1, 1] + [28, 0], points_of(mask), atol=1e-9)


def test_the_shipped_scenes_and_weights_are_small():
    total = sum(path.stat().st_size for name in ("scenes", "crops") for path in samples.data_path(name).rglob("*.*"))

    assert total < 7_000_000

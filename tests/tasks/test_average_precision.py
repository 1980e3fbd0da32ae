"""Average precision is COCO's: pycocotools gives the same figures, on random sets and on odd ones."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from ghostdeploy.tasks.detect.average_precision import Boxes, Found, Truth, match, precision

coco = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")


def theirs(truth, found, images, classes):
    """Returns mAP and mAP at 0.5 as pycocotools has them."""
    annotations = [
        {
            "id": number + 1,
            "image_id": int(i),
            "category_id": int(c),
            "bbox": list(map(float, b)),
            "iscrowd": int(crowd),
            "area": float(b[2] * b[3]),
        }
        for number, (i, c, b, crowd) in enumerate(zip(*truth.boxes, truth.crowd, strict=True))
    ]
    results = [
        {"image_id": int(i), "category_id": int(c), "bbox": list(map(float, b)), "score": float(s)}
        for i, c, b, s in zip(*found.boxes, found.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO()
        data.dataset = {
            "images": [{"id": i} for i in range(images)],
            "categories": [{"id": c} for c in range(classes)],
            "annotations": annotations,
        }
        data.createIndex()
        run = cocoeval.COCOeval(data, data.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[0], run.stats[1]


def ours(truth, found, images, classes):
    result = precision(match(found, truth, images=images, classes=classes))
    return result.mean, result.half


def random_set(seed, *, images=12, classes=4, crowds=0.2, detections=400, whole=False):
    """Boxes, and detections near them and elsewhere; with `whole` numbers there are ties of scores and IoU."""
    rng = np.random.default_rng(seed)
    count = 60
    image, label = rng.integers(0, images - 1, count), rng.integers(0, classes, count)
    boxes = np.concatenate([rng.uniform(0, 60, (count, 2)), rng.uniform(4, 40, (count, 2))], axis=1)
    pick = rng.integers(0, count, detections)
    near = boxes[pick] + rng.normal(0, 3, (detections, 4))
    near[:, 2:] = np.abs(near[:, 2:]) + 0.5
    scores = rng.uniform(0, 1, detections)
    if whole:
        boxes, near, scores = np.rint(boxes), np.maximum(np.rint(near), 1), np.rint(scores * 8) / 8
    shown = np.where(rng.uniform(size=detections) < 0.8, label[pick], rng.integers(0, classes, detections))
    truth = Truth(Boxes(image, label, boxes), rng.uniform(size=count) < crowds)
    return truth, Found(Boxes(image[pick], shown, near), scores), images, classes


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_random_sets_give_the_figures_of_pycocotools(seed, whole):
    given = random_set(seed, whole=whole)

    np.testing.assert_allclose(ours(*given), theirs(*given), atol=1e-6)


def test_classes_without_a_box_have_no_part_and_images_without_one_do():
    """What is found of a class that nobody labelled is not wrong; in an image without a box it is."""
    truth, found, images, classes = random_set(4)
    two = truth.boxes.label < 2
    fewer = Truth(Boxes(*(part[two] for part in truth.boxes)), truth.crowd[two])
    given = (fewer, found, images, classes)

    assert (truth.boxes.image < images - 1).all()
    assert ours(*given) == pytest.approx(theirs(*given), abs=1e-6)
    moved = found._replace(
        boxes=found.boxes._replace(image=np.where(found.scores > 0.9, images - 1, found.boxes.image))
    )
    assert ours(truth, moved, images, classes) == pytest.approx(theirs(truth, moved, images, classes), abs=1e-6)
    assert ours(truth, moved, images, classes) < ours(truth, found, images, classes)


def test_a_hundred_detections_of_an_image_and_class_count():
    """A right one below 149 wrong ones does not exist."""
    boxes = Boxes(np.zeros(1, int), np.zeros(1, int), np.array([[0.0, 0, 10, 10]]))
    wrong = np.tile([200.0, 200, 5, 5], (149, 1))
    found = Found(
        Boxes(np.zeros(150, int), np.zeros(150, int), np.concatenate([wrong, boxes.xywh])), np.linspace(1, 0.1, 150)
    )
    given = (Truth(boxes, np.zeros(1, bool)), found, 1, 1)

    assert ours(*given) == (0.0, 0.0) == theirs(*given)


def test_no_detection_at_all_is_zero_and_no_box_at_all_is_no_figure():
    nothing = Found(Boxes(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4))), np.zeros(0))
    truth, found, images, classes = random_set(0)
    empty = Truth(nothing.boxes, np.zeros(0, bool))

    assert ours(truth, nothing, images, classes) == (0.0, 0.0)
    assert np.isnan(ours(empty, found, images, classes)).all()


def test_a_crowd_takes_any_number_and_is_taken_last():
    """Two detections in a crowd are forgotten; one that fits a box takes the box, though the crowd fits it better."""
    corner = np.array([[0.0, 0, 10, 10], [0, 0, 9, 10]])
    truth = Truth(Boxes(np.zeros(2, int), np.zeros(2, int), corner), np.array([True, False]))
    found = Found(
        Boxes(np.zeros(3, int), np.zeros(3, int), np.array([[0.0, 0, 10, 10], [1, 1, 8, 8], [2, 2, 6, 6]])),
        np.array([0.9, 0.8, 0.7]),
    )
    matches = match(found, truth, images=1, classes=1)

    assert matches.right[0].tolist() == [True, False, False]
    assert matches.forgotten[0].tolist() == [False, True, True]
    assert ours(truth, found, 1, 1) == pytest.approx(theirs(truth, found, 1, 1), abs=1e-6)


def test_weights_count_images_as_often_as_copies_of_them():
    truth, found, images, classes = random_set(3)
    weights = np.random.default_rng(0).integers(0, 3, images)
    copies = np.repeat(np.arange(images), weights)

    def copied(boxes, others):
        rows = [(number, np.flatnonzero(boxes.image == i)) for number, i in enumerate(copies)]
        index = np.concatenate([r for _, r in rows])
        image = np.concatenate([np.full(len(r), number) for number, r in rows])
        return Boxes(image, boxes.label[index], boxes.xywh[index]), others[index]

    again = precision(match(Found(*copied(*found)), Truth(*copied(*truth)), images=len(copies), classes=classes))
    weighted = precision(match(found, truth, images=images, classes=classes), weights)

    assert weighted.mean == pytest.approx(again.mean, abs=1e-12)
    np.testing.assert_allclose(weighted.by_class, again.by_class, atol=1e-12)

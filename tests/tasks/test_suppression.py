"""Suppression keeps what the rule says: ties, limits and classes by hand, all else against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.tasks.detect.suppression import Suppression, overlap, suppress


def plainly(boxes, scores, rule):
    """The definition, box by box."""
    pairs = [
        (row, label)
        for row in range(len(boxes))
        for label in (range(scores.shape[1]) if rule.multi_label else [int(scores[row].argmax())])
        if scores[row, label] > rule.score
    ]
    pairs.sort(key=lambda pair: -scores[pair])
    kept, iou = [], overlap(boxes, boxes).tolist()
    for row, label in pairs[: rule.candidates]:
        rivals = [r for r, one in kept if one == label or rule.mode == "agnostic"]
        if all(iou[row][r] <= rule.iou for r in rivals):
            kept.append((row, label))
        if len(kept) == rule.max:
            break
    return kept


def scene(seed, count=700, classes=3):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-50, 100, (count, 2))  # coordinates may be negative
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (count, 2))], axis=1)
    return boxes, np.rint(rng.uniform(size=(count, classes)) * 50) / 50  # many ties


@pytest.mark.parametrize("mode", ["class", "agnostic"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("limits", [{}, {"max": 7}, {"candidates": 40}])
def test_it_is_the_plain_loop(mode, multi_label, limits):
    for seed in range(3):
        boxes, scores = scene(seed)
        rule = Suppression(score=0.3, iou=0.4, **({"max": 1000, "mode": mode, "multi_label": multi_label} | limits))
        found = suppress(boxes, scores, rule)
        wanted = plainly(boxes, scores, rule)

        assert found.classes.tolist() == [label for _, label in wanted]
        np.testing.assert_array_equal(found.boxes, boxes[[row for row, _ in wanted]])


def test_of_equal_scores_the_first_stays_and_an_iou_equal_to_the_threshold_is_kept():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]])  # the last has an IoU of exactly 0.5
    scores = np.array([[0.5], [0.5], [0.4]])

    found = suppress(boxes, scores, Suppression(score=0.1, iou=0.5))

    assert found.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 5]]


def test_an_iou_equal_to_the_threshold_is_kept_among_many_boxes():
    """Boxes are compared in blocks: the first and the last of 600 have an IoU of exactly 0.5."""
    far = 100.0 * np.arange(1, 599)[:, None] + np.array([0, 0, 10, 10])
    boxes = np.concatenate([[[0.0, 0, 10, 10]], far, [[0, 0, 10, 5]]])

    found = suppress(boxes, np.linspace(0.9, 0.5, 600)[:, None], Suppression(score=0.1, iou=0.5, max=1000))

    assert len(found.scores) == 600


def test_a_score_at_the_threshold_is_none_and_nothing_gives_nothing():
    rule = Suppression(score=0.5, iou=0.5)

    assert len(suppress(np.zeros((1, 4)), np.array([[0.5]]), rule).scores) == 0
    assert suppress(np.zeros((0, 4)), np.zeros((0, 3)), rule).boxes.shape == (0, 4)


def test_a_class_gives_no_more_candidates_than_its_limit():
    boxes = np.arange(10)[:, None] * 100.0 + np.array([0, 0, 10, 10])
    scores = np.stack([np.linspace(0.9, 0.5, 10), np.zeros(10)], axis=1)

    assert len(suppress(boxes, scores, Suppression(score=0.1, iou=0.5, per_class=3)).scores) == 3


@pytest.mark.parametrize(
    ("wrong", "said"), [({"score": 2.0}, "score is 2.0"), ({"iou": -1.0}, "iou is -1"), ({"max": 0}, "max is 0")]
)
def test_impossible_limits_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Suppression(**({"score": 0.1, "iou": 0.5} | wrong))

"""Masks and their overlap: exact integers by hand, and the resize of PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ghostdeploy.tasks.agreement import Agreement
from ghostdeploy.tasks.segment import mask as masks
from ghostdeploy.tasks.segment import overlap
from ghostdeploy.tasks.segment.record import Segment

LABEL = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 255], [0, 0, 0, 255]], np.uint8)
FOUND = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [2, 2, 2, 2], [0, 0, 0, 1]], np.uint8)


def test_a_mask_by_hand():
    """Class 3 is nowhere and has no part in the mean; what is found where no label is does not count."""
    areas = overlap.areas(FOUND, LABEL, 4)

    assert areas.both.tolist() == [[6, 3, 3, 0]]
    assert areas.labelled.tolist() == [[7, 4, 3, 0]]
    assert areas.found.tolist() == [[7, 4, 3, 0]]
    figures = overlap.overlap(areas)
    np.testing.assert_array_equal(figures.by_class, [6 / 8, 3 / 5, 1, np.nan])
    assert figures.miou == pytest.approx((6 / 8 + 3 / 5 + 1) / 3)
    assert figures.pixel_accuracy == 12 / 14


def test_a_class_that_is_found_and_never_labelled_counts_as_zero():
    figures = overlap.overlap(overlap.areas(np.array([[1, 0]], np.uint8), np.array([[0, 0]], np.uint8), 2))

    assert figures.by_class.tolist() == [0.5, 0]
    assert figures.miou == 0.25


def test_sums_come_before_the_mean():
    """A mean over images would be (1 + ⅓) / 2 for class 0."""
    one = overlap.areas(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 2)
    other = overlap.areas(np.array([[0, 1, 1]], np.uint8), np.zeros((1, 3), np.uint8), 2)

    assert overlap.overlap(overlap.merge([one, other])).by_class.tolist() == [0.5, 0]


def test_nothing_labelled_has_no_figure():
    assert np.isnan(overlap.overlap(overlap.areas(FOUND, np.full((4, 4), 255, np.uint8), 3))[:2]).all()


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(13, 31), (5, 7), (4, 3), (1, 1), (40, 1)])
def test_logits_are_resized_as_by_pytorch(align, size):
    logits = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=align)

    np.testing.assert_allclose(masks.resize(logits, size, Segment(align_corners=align)), wanted[0], atol=1e-5)


def test_logits_are_resized_before_they_are_decided():
    """Between 3 : 0 and −1 : 0 the border is three quarters of the way, not half of it."""
    logits = np.array([[[0.0, 0.0]], [[3.0, -1.0]]])

    assert masks.mask(logits, (1, 8), Segment(align_corners=True)).tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]


def test_a_single_logit_is_a_class_above_zero():
    assert masks.mask(np.array([[[-1.0, 0.0, 0.1]]]), (1, 3), Segment()).tolist() == [[0, 0, 1]]


def test_a_large_mask_is_decided_in_strips(monkeypatch):
    logits = np.random.default_rng(1).normal(size=(4, 9, 8))
    whole = masks.mask(logits, (61, 50), Segment())
    monkeypatch.setattr(masks, "_CHUNK", 4 * 50 * 7)

    np.testing.assert_array_equal(masks.mask(logits, (61, 50), Segment()), whole)


@pytest.mark.parametrize("shape", [(4, 4), (256, 2, 2), (1, 2, 4, 4)])
def test_what_is_no_mask_is_refused(shape):
    with pytest.raises(ValueError, match="expected \\(K, h, w\\) with 1 to 255 classes"):
        masks.mask(np.zeros(shape), (4, 4), Segment())


def test_weights_count_images_as_often_as_copies_of_them():
    rng = np.random.default_rng(2)
    each = [overlap.areas(rng.integers(0, 3, (6, 6)), rng.integers(0, 3, (6, 6)), 3) for _ in range(5)]
    weights = np.array([2, 0, 1, 3, 1])
    copies = [one for one, count in zip(each, weights, strict=True) for _ in range(count)]

    weighted = overlap.overlap(overlap.merge(each), weights)

    assert weighted.miou == overlap.overlap(overlap.merge(copies)).miou


def test_the_interval_of_a_drop_is_paired():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (30, 8, 8))
    good, worse = (
        overlap.merge([overlap.areas(np.where(rng.uniform(size=one.shape) < p, 0, one), one, 3) for one in labels])
        for p in (0.1, 0.2)
    )

    low, high = overlap.drop_interval(worse, good)

    assert 0 < low < overlap.overlap(good).miou - overlap.overlap(worse).miou < high
    assert overlap.drop_interval(good, good) == (0, 0)


def test_pixels_are_alike_where_the_class_is():
    assert overlap.pixels_alike(FOUND, LABEL) == Agreement(12, 16)

"""Intervals and tests agree with published worked values and with brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ghostdeploy.deploy.prove.evaluate import Predictions, compare
from ghostdeploy.statistics import mcnemar, paired_drop, wilson


def test_wilson_agrees_with_newcombes_worked_example():
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I: 81 of 263.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_stays_inside_the_unit_interval():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_equals_the_binomial_sum():
    exact = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12

    assert mcnemar(2, 10) == mcnemar(10, 2) == pytest.approx(exact)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0


def test_paired_drop_covers_the_observed_drop_and_shrinks_with_images():
    low, high = paired_drop(30, 10, 1000)

    assert low < 0.02 < high
    assert (paired_drop(300, 100, 10_000)[1] - paired_drop(300, 100, 10_000)[0]) < high - low


@pytest.mark.parametrize(
    ("lost", "won", "count", "answer"),
    [
        (0, 0, 1000, "within"),
        (40, 2, 1000, "exceeded"),
        (12, 4, 1000, "not enough images to decide"),
        (0, 0, 50, "not enough images to decide"),
    ],
)
def test_a_drop_is_decided_only_when_its_whole_interval_lies_on_one_side(lost, won, count, answer):
    labels = np.zeros(count, np.int64)
    ours, reference = (np.zeros((count, 5), np.int64) for _ in range(2))
    ours[:lost, 0] = 1
    reference[count - won :, 0] = 1

    found = compare(Predictions(ours, labels), Predictions(reference, labels), "float32", max_drop=0.01)

    assert (found.lost, found.won, found.answer) == (lost, won, answer)

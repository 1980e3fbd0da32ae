"""Intervals and tests agree with published worked values and with brute force."""

from __future__ import annotations

import math

import pytest

from ghostdeploy.deploy.statistics import mcnemar, paired_drop, wilson


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

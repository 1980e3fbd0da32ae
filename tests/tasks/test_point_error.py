"""Errors of points are their formulas, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ghostdeploy.tasks.agreement import Agreement
from ghostdeploy.tasks.landmarks import error, points
from ghostdeploy.tasks.landmarks.record import Landmarks, Normalizer, usual_normalizer

TRUE = np.array([[[0.0, 0], [30, 0], [30, 40], [0, 40]], [[5, 5], [5, 5], [5, 5], [5, 5]]])
SIZES = np.array([[100, 25], [16, 9]])


@pytest.mark.parametrize(
    ("normalizer", "length"),
    [
        (Normalizer(), [50, 0]),
        (Normalizer(kind="box"), [math.sqrt(1200), 0]),
        (Normalizer(kind="image"), [50, 12]),
        (Normalizer(kind="points", a=(0,), b=(2,)), [50, 0]),
        (Normalizer(kind="points", a=(0, 1), b=(2, 3)), [40, 0]),  # means of two points, as of an eye's outline
    ],
)
def test_each_length_is_its_formula(normalizer, length):
    np.testing.assert_allclose(points.lengths(TRUE, normalizer, SIZES), length)


def test_the_usual_length_is_of_the_eyes_where_the_points_are_known():
    assert usual_normalizer(98) == Normalizer(kind="points", a=(60,), b=(72,))
    assert usual_normalizer(68) == Normalizer(kind="points", a=(36,), b=(45,))
    assert usual_normalizer(8) == Normalizer(kind="diagonal")


@pytest.mark.parametrize(
    "given", [{"kind": "points"}, {"kind": "box", "a": (1,)}, {"kind": "points", "a": (-1,), "b": (2,)}]
)
def test_a_length_without_a_meaning_is_refused(given):
    with pytest.raises(ValueError, match="expected some for `points` only"):
        Normalizer(**given)


def test_a_length_of_points_that_there_are_not_is_refused():
    with pytest.raises(ValueError, match="names point 72, and there are 4"):
        points.lengths(TRUE, usual_normalizer(98), SIZES)


def test_figures_are_means_over_images_that_have_a_length():
    """Off by 5, 0, 0, 0 pixels of 50 is 0.025; all by 5·√2 is above the failure; no length is left out and counted."""
    true = np.stack([TRUE[0], TRUE[0], TRUE[1]])
    found = true.copy()
    found[0, 0] += [3, 4]
    found[1] += 5
    found[2] += 1
    errors = error.errors(found, true, points.lengths(true, Normalizer(), np.zeros((3, 2))))
    wide = 5 * math.sqrt(2)

    figures = error.point_error(errors)

    assert figures.nme == pytest.approx((0.025 + wide / 50) / 2)
    assert figures.failure_rate == 0.5
    assert figures.pixels == pytest.approx((1.25 + wide) / 2)
    assert figures.auc == pytest.approx(0.75 / 2)
    assert (figures.images, figures.left_out) == (2, 1)


def test_an_error_at_the_threshold_is_no_failure_and_nothing_has_no_figure():
    at = error.Errors(np.array([0.1]), np.array([1.0]))
    nothing = error.Errors(np.array([np.nan]), np.array([np.nan]))

    assert error.point_error(at).failure_rate == 0
    assert np.isnan(error.point_error(nothing)[:4]).all()
    assert error.point_error(nothing)[4:] == (0, 1)


def test_the_area_under_the_curve_is_the_integral_of_the_staircase():
    values = np.random.default_rng(0).exponential(0.06, 200)
    steps = np.linspace(0, 0.1, 200001)[:-1] + 0.1 / 400000
    wanted = np.mean([(values <= x).mean() for x in steps[::20]])

    assert error.point_error(error.Errors(values, values)).auc == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("unit", "output"),
    [("pixels", [32.0, 12]), ("relative", [0.5, 0.25]), ("centered", [0.0, -0.5])],
)
def test_points_are_read_in_their_unit_as_x_and_y(unit, output):
    """On an input of 48 × 64 (height, width), flat and in pairs."""
    for shape in ((1, 2), (1, 1, 2)):
        found = points.points(np.array(output).reshape(shape), Landmarks(unit=unit), (48, 64))
        np.testing.assert_allclose(found, [[[32, 12]]])


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 3), (8,)])
def test_what_is_no_points_is_refused(shape):
    with pytest.raises(ValueError, match="expected \\(N, 2K\\) or \\(N, K, 2\\)"):
        points.points(np.zeros(shape), Landmarks(), (8, 8))


def test_parts_of_a_set_have_the_figures_of_the_whole_and_weights_count_copies():
    rng = np.random.default_rng(1)
    values = rng.exponential(0.05, 30)
    values[4] = np.nan
    whole = error.Errors(values, values * 50)
    weights = rng.integers(0, 3, 30)

    assert error.point_error(error.merge([error.Errors(v, v * 50) for v in np.split(values, [7, 19])])) == (
        error.point_error(whole)
    )
    np.testing.assert_allclose(
        error.point_error(whole, weights), error.point_error(error.Errors(*(np.repeat(v, weights) for v in whole)))
    )


def test_the_interval_of_a_rise_is_relative_and_paired():
    base = np.random.default_rng(2).exponential(0.05, 100)
    reference, found = error.Errors(base, base), error.Errors(base * 1.02, base)

    np.testing.assert_allclose(error.rise_interval(found, reference), [0.02, 0.02])


def test_points_are_alike_within_a_fiftieth_of_the_length():
    reference = TRUE[:1]
    found = reference + np.array([[[1, 0], [0, 1.01], [0, 0], [-0.6, 0.8]]])

    assert error.points_alike(found, reference, np.array([50.0])) == Agreement(3, 4)

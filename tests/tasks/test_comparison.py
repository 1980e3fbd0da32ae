"""A detector is compared with its float model box by box, where something is seen, and by images drawn for both."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ghostdeploy.tasks.agreement import Agreement, Difference, merge_agreements, merge_differences
from ghostdeploy.tasks.bootstrap import paired_interval
from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.average_precision import Boxes, Found, Truth, match, merge, precision
from ghostdeploy.tasks.detect.comparison import boxes_alike, differences
from ghostdeploy.tasks.detect.measure import drop_interval
from ghostdeploy.tasks.detect.suppression import Detections


def detections(*rows):
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


def random_set(seed, images=20, classes=3):
    rng = np.random.default_rng(seed)
    count = 4 * images
    image, label = rng.integers(0, images, count), rng.integers(0, classes, count)
    boxes = np.concatenate([rng.uniform(0, 60, (count, 2)), rng.uniform(8, 40, (count, 2))], axis=1)
    return Truth(Boxes(image, label, boxes), rng.uniform(size=count) < 0.1)


def noisy(truth, sigma, seed=1):
    rng = np.random.default_rng(seed)
    boxes = truth.boxes.xywh + rng.normal(0, sigma, truth.boxes.xywh.shape)
    scores = np.round(rng.uniform(size=len(boxes)), 1)  # ties
    return Found(truth.boxes._replace(xywh=np.maximum(boxes, 0.5)), scores)


def test_a_box_has_one_partner_of_its_class_at_half_an_overlap():
    """The IoU of the second pair is exactly ½; the third is of another class; the fourth finds its partner taken."""
    one = detections([0, 0, 10, 10, 0.9, 0], [20, 0, 30, 10, 0.8, 0], [40, 0, 50, 10, 0.7, 1], [0, 0, 10, 9, 0.6, 0])
    other = detections([0, 0, 10, 10, 0.9, 0], [20, 0, 30, 5, 0.8, 0], [40, 0, 50, 10, 0.7, 0])

    assert boxes_alike([one], [other]) == Agreement(4, 7)
    assert boxes_alike([detections()], [other]) == Agreement(0, 3)
    assert boxes_alike([detections()], [detections()]) == Agreement(0, 0)


def test_agreement_is_a_share_with_its_lower_bound():
    whole = merge_agreements([Agreement(40, 50), Agreement(55, 50)])

    assert whole == Agreement(95, 100)
    assert whole.share == 0.95
    assert whole.lower == pytest.approx(0.888, abs=1e-3)  # Wilson's interval of 95 in 100
    assert math.isnan(Agreement(0, 0).share)
    assert Agreement(0, 0).lower == 0


def test_tensors_are_compared_where_the_float_model_sees_something():
    """Noise at points whose best score is below 0.05 is nothing; at 0.05 itself it counts."""
    record = kinds.Gfl(outputs=("o",), classes=2, scores="probabilities")
    reference = np.zeros((1, 4, 2 + 32))
    reference[0, :, 0] = [0.9, 0.05, 0.0499, 0.0]
    reference[0, :, 2:] = 1.0
    given = reference.copy()
    given[0, 2:] += 5
    assert differences(record, {"o": given}, {"o": reference})["boxes"].noise == 0

    given[0, 1, 2] += 2
    given[0, 0, 1] += 0.1
    found = differences(record, {"o": given}, {"o": reference})

    assert found["boxes"] == Difference(64, 4)
    assert found["scores"].signal == pytest.approx(0.81 + 0.0025)
    assert found["scores"].sqnr_db == pytest.approx(10 * math.log10(0.8125 / 0.01))


def test_objectness_is_among_the_scores_and_finished_rows_are_not_compared():
    record = kinds.YoloV5(outputs=("o",), classes=1)
    rows = np.full((1, 3, 6), 0.5)
    other = rows.copy()
    other[..., 4] = 0.4

    assert differences(record, {"o": other}, {"o": rows})["scores"].noise == pytest.approx(0.03)
    assert differences(kinds.End2End(outputs=("o",)), {"o": rows}, {"o": rows}) == {}


def test_differences_add_up():
    whole = merge_differences([Difference(3, 0), Difference(97, 1)])

    assert whole.sqnr_db == pytest.approx(20)
    assert Difference(1, 0).sqnr_db is None
    assert Difference(0, 1).sqnr_db == -math.inf


def test_parts_of_a_set_have_the_figure_of_the_whole():
    truth = random_set(0)
    found = noisy(truth, 3)
    whole = match(found, truth, images=20, classes=3)

    def part(low, high):
        def cut(boxes):
            keep = (boxes.image >= low) & (boxes.image < high)
            return Boxes(boxes.image[keep] - low, boxes.label[keep], boxes.xywh[keep]), keep

        (t, kept), (f, chosen) = cut(truth.boxes), cut(found.boxes)
        return match(Found(f, found.scores[chosen]), Truth(t, truth.crowd[kept]), images=high - low, classes=3)

    merged = merge([part(0, 7), part(7, 8), part(8, 20)])

    for one, other in zip(merged, whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert precision(merged).mean == precision(whole).mean


def test_the_interval_of_a_drop_is_paired():
    """Two models that err on the same images: the drop is known well although each figure is not."""
    truth = random_set(3)
    good, worse = (match(noisy(truth, sigma), truth, images=20, classes=3) for sigma in (1.0, 1.5))
    drop = precision(good).mean - precision(worse).mean

    low, high = drop_interval(worse, good)
    alone = paired_interval(20, lambda weights: precision(good, weights).mean, rounds=200)

    assert low < drop < high
    assert high - low < alone[1] - alone[0]
    assert drop_interval(good, good) == (0.0, 0.0)
    assert drop_interval(worse, good) == (low, high)  # seeded


def test_the_interval_is_that_of_a_mean():
    """Of 400 values of σ = 1 the mean has a standard error of 0.05."""
    values = np.random.default_rng(0).normal(size=400)

    low, high = paired_interval(400, lambda weights: float(values @ weights) / 400, rounds=2000)

    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    assert np.isnan(paired_interval(3, lambda _: float("nan"))).all()

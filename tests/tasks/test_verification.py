"""Verification gives the figures of its definition, however a file is sorted."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.tasks.agreement import Agreement
from ghostdeploy.tasks.embed import verification
from ghostdeploy.tasks.embed.verification import Pairs


def random_pairs(seed=0, count=400, apart=2.0):
    rng = np.random.default_rng(seed)
    same = rng.uniform(size=count) < 0.5
    return Pairs(np.clip(0.15 * rng.normal(size=count) + 0.15 * apart * same, -1, 1), same)


def plainly(similarity, same):
    """The best threshold by trying each."""
    values = np.unique(similarity)
    edges = np.concatenate([[values[0] - 1], values, [values[-1] + 1]])
    cuts = (edges[:-1] + edges[1:]) / 2
    return max(zip([((similarity > t) == same).sum() for t in cuts], np.diff(edges), cuts, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_the_best_threshold_is_that_of_trying_all(seed):
    pairs = random_pairs(seed, 60)
    rounded = np.round(pairs.similarity, 1)  # ties cannot be told apart

    for similarity in (pairs.similarity, rounded):
        threshold = verification.best_threshold(similarity, pairs.same)
        right, _, _ = plainly(similarity, pairs.same)
        assert ((similarity > threshold) == pairs.same).sum() == right


def test_of_equally_good_thresholds_the_one_farthest_from_any_pair_is_taken():
    """Three of four are right above 0.125 and above 0.75."""
    similarity = np.array([0.1, 0.15, 0.6, 0.9])

    assert verification.best_threshold(similarity, np.array([False, True, False, True])) == pytest.approx(0.75)


def test_a_file_sorted_by_label_has_the_figure_of_a_shuffled_one():
    """Ten folds in file order would hold one label each, and nine folds could not tell where the tenth is."""
    pairs = random_pairs()
    order = np.argsort(~pairs.same, kind="stable")
    sorted_by_label = verification.verification(Pairs(pairs.similarity[order], pairs.same[order]))
    mixed = verification.verification(pairs)

    assert sorted_by_label.accuracy == pytest.approx(mixed.accuracy, abs=0.02)
    assert sorted_by_label.accuracy == pytest.approx(0.84, abs=0.03)  # Φ(1) of two normals two deviations apart
    assert sorted_by_label.folds == 10


def test_the_threshold_of_a_fold_does_not_see_it():
    """With random labels the best threshold on the pairs themselves is above chance, and the honest figure is not."""
    rng = np.random.default_rng(3)
    pairs = Pairs(rng.normal(size=60), np.arange(60) % 2 == 0)
    best = ((pairs.similarity > verification.best_threshold(pairs.similarity, pairs.same)) == pairs.same).mean()

    assert verification.verification(pairs).accuracy < 0.55 < best


def test_folds_of_a_file_are_kept():
    """What the first fold teaches is all wrong in the second; the second teaches to call all pairs one thing."""
    similarity = np.tile([0.9, 0.8, 0.2, 0.1], 2)
    same = np.array([True, True, False, False, False, False, True, True])
    fold = np.repeat([7, 9], 4)

    found = verification.verification(Pairs(similarity, same, fold))

    assert (found.accuracy, found.folds) == (0.25, 2)
    with pytest.raises(ValueError, match="all pairs are in one fold"):
        verification.verification(Pairs(similarity, same, fold * 0))


def test_each_fold_has_its_share_of_both_kinds():
    same = np.arange(1000) < 300

    for number in range(10):
        here = verification._folds(same) == number
        assert (here.sum(), same[here].sum()) == (100, 30)


def test_tar_is_of_the_threshold_that_lets_no_more_than_the_share_pass():
    others = np.linspace(-1, 0.5, 2000)  # two may pass: the third largest is at 0.49850
    pairs = Pairs(np.concatenate([others, [0.4984, 0.4986, 0.9, 0.1]]), np.arange(2004) >= 2000)

    assert verification.tar_at_far(pairs) == (0.5, None)


def test_too_few_other_pairs_measure_no_far():
    tar, why = verification.tar_at_far(Pairs(np.zeros(1099), np.arange(1099) < 100))

    assert tar is None
    assert why == "not measurable: 999 pairs of different ones, expected 1000 for FAR 0.001"
    assert verification.verification(random_pairs()).tar is None


@pytest.mark.parametrize("same", [[True] * 9, [True] * 8 + [False]])
def test_pairs_of_one_kind_have_no_figure(same):
    with pytest.raises(ValueError, match="expected two of each at least"):
        verification.verification(Pairs(np.zeros(9), np.array(same)))


def test_a_vector_without_a_direction_is_refused():
    with pytest.raises(ValueError, match="embedding 1 has length 0, so it has no direction"):
        verification.unit(np.array([[1.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="embedding 0 has length nan"):
        verification.cosines(np.array([[np.nan, 0]]), np.array([[1.0, 0]]))


def test_cosines_do_not_depend_on_length():
    a = np.array([[3.0, 0], [1, 1]])

    np.testing.assert_allclose(verification.cosines(a, np.array([[5.0, 0], [0, 2]])), [1, 0.5**0.5])


def test_the_drop_is_of_pairs_decided_otherwise():
    pairs = random_pairs(5)
    good = verification.verification(pairs)
    noise = np.random.default_rng(0).normal(size=400) * 0.1
    worse = verification.verification(Pairs(pairs.similarity + noise, pairs.same))

    low, high = verification.drop_interval(worse, good)

    assert low < good.accuracy - worse.accuracy < high
    assert verification.drop_interval(good, good) == (0, 0)


def test_parts_of_a_set_are_the_whole():
    pairs = random_pairs(6)
    cut = [Pairs(s, d) for s, d in zip(np.split(pairs.similarity, [13]), np.split(pairs.same, [13]), strict=True)]

    assert verification.verification(verification.merge(cut)).accuracy == verification.verification(pairs).accuracy


def test_otsu_cuts_between_two_groups_and_pairs_are_decided_alike_by_side():
    values = np.concatenate([np.linspace(0, 0.2, 30), np.linspace(0.8, 1, 10)])
    reference = np.array([[1.0, 0], [1, 0.1], [0, 1]])
    found = np.array([[1.0, 0], [1, 0.1], [1, 0.2]])  # the third has come close to both

    assert verification.otsu(values) == pytest.approx(0.5)
    assert verification.otsu(np.full(5, 0.3)) == 0.3
    assert verification.pairs_alike(found, reference) == Agreement(1, 3)
    assert verification.pairs_alike(found, reference, 0.999) == Agreement(3, 3)

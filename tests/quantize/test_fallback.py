"""Which units go back to float: the first ones of a ranking, few of them, and only where the gate asks for it."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.deploy.quantize.fallback import Gate, affordable, rank, shortest_prefix
from ghostdeploy.tasks.base import TaskInfo
from ghostdeploy.tasks.classify import Classify
from ghostdeploy.tasks.raw import Raw

CLASSIFY, RAW = Classify(TaskInfo(), (32, 32)), Raw(TaskInfo(name="raw"), (32, 32))


def test_the_shortest_prefix_is_found_with_few_questions():
    asked = []

    def holds(units):
        asked.append(len(units))
        return len(units) >= 11

    ranked = [f"u{i}" for i in range(40)]

    assert shortest_prefix(ranked, holds) == tuple(ranked[:11])
    assert len(asked) <= 9
    assert shortest_prefix(ranked[:5], holds) is None
    assert shortest_prefix([], holds) is None
    assert len(shortest_prefix(ranked, lambda units: len(units) == 4)) == 4  # though more of them do not help


def test_the_fallback_may_not_give_back_more_than_half_of_the_work_or_what_it_is_told():
    assert affordable(["a", "b", "c"], {"a": 30, "b": 20, "c": 50}) == ["a", "b"]
    assert affordable(["c", "a"], {"a": 40, "b": 9, "c": 51}) == []
    assert affordable(["a", "b", "c"], {"a": 30, "b": 20, "c": 50}, 0.3) == ["a"]


def ranked(macs, simulate, reference, task):
    return rank(macs, simulate, reference, task, on_progress=lambda done, total: None)


def noisy(noise, background=0.0):
    """Outputs of a network whose quantized units each add independent noise, and whose sums add some that stays."""
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(64, 10))
    parts = {unit: amount * rng.normal(size=wanted.shape) for unit, amount in noise.items()}
    rest = background * rng.normal(size=wanted.shape)

    def simulate(in_float):
        return {"logits": wanted + rest + sum(part for unit, part in parts.items() if unit not in in_float)}

    return {"logits": wanted}, simulate


@pytest.mark.parametrize("background", [0.0, 0.3])
def test_units_are_ranked_by_the_noise_that_each_makes_alone(background):
    reference, simulate = noisy({"a": 0.1, "b": 0.2, "c": 0.0}, background)

    gains = ranked({"a": 1, "b": 1, "c": 1}, simulate, reference, CLASSIFY)

    assert [gain.unit for gain in gains] == ["b", "a", "c"]
    assert gains[2].sqnr_gain_db == 0
    total = 0.1**2 + 0.2**2 + background**2
    for gain, own in zip(gains, (0.2, 0.1), strict=False):
        assert gain.sqnr_gain_db == pytest.approx(10 * np.log10(total / (total - own**2)), rel=0.25)


def test_a_unit_with_much_work_must_make_more_noise_to_go_first():
    for small, order in ((0.1, ["large", "small"]), (0.15, ["small", "large"])):
        reference, simulate = noisy({"large": 0.2, "small": small})
        assert [gain.unit for gain in ranked({"large": 900, "small": 1}, simulate, reference, CLASSIFY)] == order


def test_where_a_task_compares_no_values_the_decisions_rank():
    class Decided(Classify):
        """Like a detector whose graph suppresses: rows change places, so no value has a partner."""

        def values(self, got, reference):
            return {}

    reference, simulate = noisy({"a": 0.5, "b": 5.0, "c": 0.0})

    gains = ranked({"a": 1, "b": 1, "c": 1}, simulate, reference, Decided(TaskInfo(), (32, 32)))

    assert [gain.unit for gain in gains] == ["b", "a", "c"]


def test_a_unit_tells_which_share_of_decisions_it_changes_alone():
    reference, simulate = noisy({"a": 0.0, "b": 5.0})

    first, second = ranked({"a": 1, "b": 1}, simulate, reference, CLASSIFY)

    assert (first.unit, second.agreement_gain) == ("b", 0)
    assert first.agreement_gain > 0.5


def test_the_gate_asks_for_full_agreement_where_images_are_too_few_for_a_bound():
    reference = np.eye(10)
    gate = gate_of(CLASSIFY, {"logits": reference}, values_judge=False)

    assert gate.holds({"logits": reference})
    assert not gate.holds({"logits": np.roll(reference, 1, axis=1)})


def gate_of(task, reference, *, values_judge):
    return Gate(task, reference, None, 0.95, required_db=20, values_judge=values_judge, max_drop=0.01)


def test_a_small_output_cannot_hide_behind_a_large_one():
    large, small = np.random.default_rng(0).normal(size=(2, 40, 6))
    reference = {"pixels": 640 * large, "scores": small}
    gate = gate_of(RAW, reference, values_judge=True)

    assert gate.holds({"pixels": 641 * large, "scores": 1.01 * small})
    assert not gate.holds({"pixels": 640 * large, "scores": 1.2 * small})


def test_with_a_measure_its_drop_decides_in_place_of_the_decisions():
    reference = {"logits": np.eye(10)}
    moved = {"logits": np.roll(np.eye(10), 1, axis=1)}
    drops = {id(reference): 0.01, id(moved): 0.02}

    def gate(required):
        return Gate(
            CLASSIFY, reference, None, required, 20, values_judge=False, max_drop=0.01, drop=lambda one: drops[id(one)]
        )

    assert gate(None).holds(reference)
    assert not gate(None).holds(moved)
    drops[id(moved)] = 0.0
    assert gate(None).holds(moved)
    assert not gate(0.95).holds(moved)
    drops[id(moved)] = float("nan")
    assert not gate(None).holds(moved)


def test_units_are_ranked_by_what_they_bring_to_the_worst_output():
    large, small = np.random.default_rng(0).normal(size=(2, 40, 6))
    reference = {"pixels": 640 * large, "scores": small}

    def simulate(in_float):
        worse = 1.3 if "scores" not in in_float else 1.0
        return {"pixels": reference["pixels"] * (1.05 if "pixels" not in in_float else 1.0), "scores": worse * small}

    gains = ranked({"pixels": 1, "scores": 1}, simulate, reference, RAW)

    assert [gain.unit for gain in gains] == ["scores", "pixels"]
    assert gains[1].sqnr_gain_db == 0

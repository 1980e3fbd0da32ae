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


def test_the_fallback_may_not_give_back_more_than_half_of_the_work():
    assert affordable(["a", "b", "c"], {"a": 30, "b": 20, "c": 50}) == ["a", "b"]
    assert affordable(["c", "a"], {"a": 40, "b": 9, "c": 51}) == []


def test_units_are_ranked_by_what_they_bring():
    wanted = np.eye(4, 10)
    noise = {"a": 0.1, "b": 0.4, "c": 0.0}

    def simulate(in_float):
        return {"logits": wanted + sum(amount for unit, amount in noise.items() if unit not in in_float)}

    gains = rank(["a", "b", "c"], simulate, {"logits": wanted}, CLASSIFY, on_progress=lambda done, total: None)

    assert [gain.unit for gain in gains] == ["b", "a", "c"]
    assert gains[2].sqnr_gain_db == pytest.approx(0)


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

    gains = rank(["pixels", "scores"], simulate, reference, RAW, on_progress=lambda done, total: None)

    assert [gain.unit for gain in gains] == ["scores", "pixels"]
    assert gains[1].sqnr_gain_db == 0

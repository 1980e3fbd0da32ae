"""Which units go back to float: the first ones of a ranking, few of them, and only where the gate asks for it."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.deploy.quantize.fallback import Gate, affordable, rank, shortest_prefix


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
        return wanted + sum(amount for unit, amount in noise.items() if unit not in in_float)

    gains = rank(["a", "b", "c"], simulate, wanted, on_progress=lambda done, total: None)

    assert [gain.unit for gain in gains] == ["b", "a", "c"]
    assert gains[2].sqnr_gain_db == pytest.approx(0)


def test_the_gate_asks_for_full_agreement_where_images_are_too_few_for_a_bound():
    reference = np.eye(10)
    gate = Gate(reference, None, 0.95, 0.01)

    assert gate.holds(reference)
    assert not gate.holds(np.roll(reference, 1, axis=1))

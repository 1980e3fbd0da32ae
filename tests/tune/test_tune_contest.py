"""Who wins when the measurements are known: scores, contests, limits, the Pareto table."""

from __future__ import annotations

import json
from random import Random

import msgspec
import pytest

from ghostdeploy.bundle.manifest import Accuracy
from ghostdeploy.deploy.tune import contest, report
from ghostdeploy.deploy.tune.candidates import Candidate, Entry
from ghostdeploy.deploy.tune.journal import Picked, Refused, Round
from ghostdeploy.deploy.tune.limits import require_bundles, require_within_limits
from ghostdeploy.deploy.tune.results import Tuned
from ghostdeploy.deploy.tune.summary import summarize
from ghostdeploy.errors import ExportFailed, GateFailed
from tests.tuning import ONE, TWO, stage


def rounds(count=8, *, seed=0, noise=0.02, sitting=1, **times):
    """Rounds of entries with known times on a machine whose speed drifts."""
    rng = Random(seed)
    found = []
    for _ in range(count):
        drift = rng.uniform(0.7, 1.6)
        calls = {key: value * drift * rng.uniform(1 - noise, 1 + noise) for key, value in times.items()}
        found.append(Round(sitting=sitting, calls=calls, queued={}, spent=0.0))
    return found


def dropping(points):
    return Accuracy(
        top1=0.9 - points / 100,
        top5=1.0,
        count=1000,
        reference_top1=0.9,
        drop=points / 100,
        drop_ci95=(0.0, 0.1),
        max_drop=0.01,
        verdict="passed",
    )


def test_a_drifting_machine_does_not_change_who_is_faster():
    found = contest.scores(rounds(a=1.0, b=0.9, c=1.2), ["a", "b", "c"], "calls")

    assert list(found) == ["b", "a", "c"]
    assert found["a"].value == 1
    assert found["b"].value == pytest.approx(0.9, abs=0.03)
    assert found["b"].low <= found["b"].value <= found["b"].high


def test_entries_that_never_sat_together_are_compared_through_the_anchor():
    waves = rounds(a=1.0, b=0.8) + rounds(seed=1, sitting=2, a=1.0, c=0.7)

    assert list(contest.scores(waves, ["a", "b", "c"], "calls")) == ["c", "b", "a"]
    assert contest.ratio(waves, "b", "c", "calls") is None


def test_the_next_entry_becomes_the_anchor_when_the_first_cannot_be_run_any_more():
    waves = rounds(a=1.0, b=0.8) + rounds(seed=1, sitting=2, a=1.0, c=0.7)

    assert contest.find_anchor(waves, ["b", "c"], "calls") == "b"
    assert list(contest.scores(waves, ["b", "c"], "calls")) == ["b"]


def test_only_what_may_be_the_best_is_a_contender():
    found = contest.scores(rounds(a=1.0, b=0.99, c=1.01, d=1.5), list("abcd"), "calls")

    assert set(contest.contenders(found, 8)) == {"a", "b", "c"}
    assert contest.contenders(found, 2)[0] == next(iter(found))
    assert len(contest.contenders(found, 2)) == 2


def test_a_contest_is_decided_when_nobody_can_be_three_percent_faster():
    clear, close = rounds(16, a=1.0, b=1.2), rounds(16, noise=0.15, a=1.0, b=1.0)

    assert contest.is_decided(clear, "a", ["a", "b"], "calls")
    assert not contest.is_decided(clear, "b", ["a", "b"], "calls")
    assert not contest.is_decided(close, "a", ["a", "b"], "calls")


@pytest.mark.parametrize("seed", range(5))
def test_the_planted_best_of_a_sitting_leads(seed):
    times = dict(zip("abcd", Random(seed).sample([1.0, 1.05, 1.1, 1.3], 4), strict=True))
    found = rounds(20, seed=seed, **times)

    assert contest.placed(found, "calls") == sorted(times, key=times.__getitem__)


def test_what_died_during_a_sitting_has_no_place():
    found = [*rounds(8, a=1.0, b=0.5, c=2.0), *rounds(4, a=1.0, c=2.0)]

    assert contest.placed(found, "calls") == ["a", "c"]
    assert contest.placed([], "calls") == []


def test_more_threads_that_are_always_faster_are_picked():
    seen = rounds(8, one=1.0, two=0.8) + rounds(20, seed=1, sitting=2, one=1.0, two=0.85)

    assert contest.settle(seen, ["two", "one"], {"one": 1, "two": 2}, "calls") == "two"


def test_more_threads_that_were_slow_in_one_sitting_are_not_picked():
    """A machine whose second core wakes up quickly in one minute and slowly in the next."""
    seen = rounds(8, one=1.0, two=2.3) + rounds(20, seed=1, sitting=2, one=1.0, two=0.8)

    assert contest.settle(seen, ["two", "one"], {"one": 1, "two": 2}, "calls") == "one"


def test_more_threads_for_a_gain_within_the_margin_are_not_picked():
    seen = rounds(20, one=1.0, two=0.985, other=1.2)

    assert contest.settle(seen, ["two", "one", "other"], {"one": 1, "two": 2, "other": 1}, "calls") == "one"


def test_the_same_number_of_threads_is_a_matter_of_time_alone():
    seen = rounds(20, a=1.0, b=0.99)

    assert contest.settle(seen, ["b", "a"], {"a": 2, "b": 2}, "calls") == "b"


def test_four_threads_fall_back_to_the_best_of_the_fewer():
    seen = rounds(20, one=1.0, two=0.8, four=0.79)

    assert contest.settle(seen, ["four", "two", "one"], {"one": 1, "two": 2, "four": 4}, "calls") == "two"


@pytest.fixture
def planted(tmp_path, tiny_bundle):
    """Three bundles, each with one and two threads: 4, 3, 2 ms and more; the fastest one loses accuracy."""

    def build(open_stage):
        fp32 = open_stage.plant(tiny_bundle("onnx"), accuracy=dropping(0.0))
        int8 = open_stage.plant(tiny_bundle("onnx", "int8"), accuracy=dropping(0.5))
        vino = open_stage.plant(tiny_bundle("openvino"), accuracy=dropping(0.0))
        times = {fp32: (4.0, 3.0), int8: (2.0, 2.5), vino: (3.5, 3.2)}
        entries = {
            Entry(one, how): ms / 1e3 for one, both in times.items() for how, ms in zip((ONE, TWO), both, strict=True)
        }
        open_stage.measured(*[entries] * 8)
        return fp32, int8, vino

    return build


def test_the_standing_follows_the_measurements_and_the_limits(tmp_path, planted):
    with stage(tmp_path, max_latency=3.1) as on:
        fp32, int8, _ = planted(on)
        found = list(on.contenders.standing())

    assert found == [Entry(int8, ONE).key, Entry(int8, TWO).key, Entry(fp32, TWO).key]


def test_the_smallest_bundle_wins_by_size_and_its_fastest_setting(tmp_path, planted):
    with stage(tmp_path, objective="size") as on:
        planted(on)
        sizes = {one: bundle.size for one, bundle in on.contenders.bundles.items()}
        smallest = min(sizes, key=sizes.__getitem__)

        assert {on.contenders.entries()[key].candidate for key in on.contenders.standing()} == {smallest}
        assert on.contenders.figure(next(iter(on.contenders.standing()))).startswith(smallest.name)


def test_a_bundle_that_failed_its_gates_is_never_measured(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        on.plant(tiny_bundle("onnx"), verdict="failed", failed_because="top-1 drops by 3.00 points")
        kept = on.plant(tiny_bundle("openvino"))

        assert {entry.candidate for entry in on.contenders.entries().values()} == {kept}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_latency": 0.5}, ("--max-latency 0.5 ms", "onnx int8, 1 thread comes nearest", "2.000 ms")),
        ({"max_size": 10}, ("--max-size 0.00 MB", "comes nearest with")),
        ({"max_size": 10, "max_latency": 0.5}, ("--max-size 0.00 MB and --max-latency 0.5 ms",)),
    ],
)
def test_limits_that_nothing_meets_are_a_missed_gate_that_names_the_nearest(tmp_path, planted, limits, words):
    with stage(tmp_path, **limits) as on:
        planted(on)
        with pytest.raises(GateFailed) as caught:
            require_within_limits(on.contenders)

    assert all(word in caught.value.message for word in words)


def test_bundles_that_all_failed_their_gates_are_a_missed_gate_with_the_reason(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        on.plant(tiny_bundle("onnx"), verdict="failed", accuracy=dropping(5), failed_because="top-1 drops by 5 points")
        on.plant(tiny_bundle("openvino"), verdict="failed", accuracy=dropping(2), failed_because="it drops by 2 points")
        with pytest.raises(GateFailed, match="openvino fp32 came nearest: it drops by 2 points"):
            require_bundles(on.contenders, list(on.contenders.bundles))


def test_no_bundle_at_all_is_the_converters_failure(tmp_path):
    with stage(tmp_path) as on:
        on.journal.append(Refused(what="onnx fp32", why="aten.odd is not known", spent=1.0))
        with pytest.raises(ExportFailed, match=r"none of 1 candidates could be exported.*aten\.odd is not known"):
            require_bundles(on.contenders, [Candidate("onnx", "fp32")])


@pytest.fixture
def summary(tmp_path, planted):
    with stage(tmp_path, max_latency=3.3) as on:
        fp32, int8, vino = planted(on)
        lost = Candidate("tflite", "fp32")
        on.journal.append(Refused(what=lost.name, why="an operator | has no lowering", spent=1.0))
        on.measured(*[{Entry(int8, ONE): 0.002, Entry(int8, TWO): 0.0025}] * 8, sitting=2)
        picked = Picked(sitting=2, asked="", budget=60.0, pick=Entry(int8, ONE).key, spent=61.0)
        never = Candidate("onnx", "fp32", "SplitConcat")
        return summarize(on.contenders, on.workshop, picked, [fp32, int8, vino, lost, never], machine="a machine")


def test_the_summary_says_what_to_load_and_how(summary):
    assert summary.bundle.endswith("tiny-onnx-int8")
    assert (summary.threads, summary.profile, summary.latency_ms) == (1, "latency", 2.0)
    assert summary.decided
    assert [one.entry for one in summary.final] == ["onnx int8, 1 thread", "onnx int8, 2 threads"]
    assert report.load_line(summary) == f'ghostdeploy.load("{summary.bundle}", threads=1)'


def test_every_candidate_has_a_row_with_its_place_and_reason(summary):
    found = {row.name: (row.place, row.why) for row in summary.rows}

    assert found["onnx int8"] == ("pick", None)
    assert found["onnx fp32"] == ("pareto", None)
    assert found["openvino fp32"] == ("dominated", None)
    assert found["tflite fp32"] == ("out", "an operator | has no lowering")
    assert found["onnx fp32 without SplitConcat"] == ("out", "not exported: the budget was spent")


def test_a_row_shows_the_fastest_setting_within_the_limits_first(summary):
    row = next(row for row in summary.rows if row.name == "onnx fp32")

    assert [(speed.threads, speed.latency_ms) for speed in row.speeds] == [(2, 3.0), (1, 4.0)]
    assert row.speeds[0].ratio == pytest.approx(1.5)


def test_a_pick_with_fewer_threads_than_the_fastest_says_so_and_shows_its_own_setting(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        one = on.plant(tiny_bundle("onnx"), accuracy=dropping(0.0))
        on.measured(*[{Entry(one, ONE): 0.002, Entry(one, TWO): 0.0018}] * 8)
        picked = Picked(sitting=1, asked="", budget=60.0, pick=Entry(one, ONE).key, spent=61.0)
        found = summarize(on.contenders, on.workshop, picked, [one], machine="a machine")

    assert [speed.threads for speed in found.rows[0].speeds] == [1, 2]
    assert not found.decided
    assert any(line.startswith("onnx fp32, 2 threads was faster in the last run") for line in report.remarks(found))


def test_the_tables_hold_every_row_as_markdown_and_as_json(summary, tmp_path):
    report.write_tables(summary, tmp_path)
    text, document = (tmp_path / "pareto.md").read_text(), json.loads((tmp_path / "pareto.json").read_text())

    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(summary.rows)
    assert {line.count("|") for line in lines} == {1 + len(report.cells(summary)[0])}
    assert "images/s" not in text
    assert "latency ≤ 3.3 ms" in text
    assert "tflite fp32: an operator | has no lowering" in text
    assert msgspec.convert(document, Tuned) == summary
    assert not list(tmp_path.glob(".pareto*"))

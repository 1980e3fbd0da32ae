"""A run of `tune` with real engines over tiny bundles: what is measured, what goes on after a stop, what is left."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from ghostdeploy.bundle.folder import MANIFEST, open_bundle
from ghostdeploy.bundle.manifest import PassRecord
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.measure import turns
from ghostdeploy.deploy.tune import report, run
from ghostdeploy.deploy.tune.candidates import Candidate, Entry
from ghostdeploy.deploy.tune.contenders import QUICK_ROUNDS
from ghostdeploy.deploy.tune.journal import Picked, Refused
from ghostdeploy.errors import GateFailed, UsageError
from ghostdeploy.models.source import from_module
from ghostdeploy.progress import Silent
from tests.conftest import require
from tests.signing import sign_again
from tests.staged import dead
from tests.tuning import ONE, TWO, Net, stage


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(turns, "BLOCK_SECONDS", 0.005)
    monkeypatch.setattr(run, "CONTEST_ROUNDS", 8)
    monkeypatch.setattr(run, "FINAL_ROUNDS", 6)


def test_the_clearly_fastest_bundle_is_picked_and_nothing_is_measured_twice(tmp_path, tiny_bundle):
    small, large = tiny_bundle("onnx"), tiny_bundle("openvino", size=128)
    with stage(tmp_path) as on:
        tried = [on.plant(large), on.plant(small)]
        picked = on.tuning.run(tried)
        before = len(on.journal.events)
    with stage(tmp_path) as again:
        repeated = again.tuning.run(tried)

        assert len(again.journal.events) == before
    assert picked.pick.startswith("onnx fp32")
    assert repeated == picked


def test_every_entry_gets_its_rounds_with_the_anchor_a_few_processes_at_a_time(tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setattr(run, "WAVE", 3)
    with stage(tmp_path) as on:
        on.tuning.run([on.plant(tiny_bundle("onnx")), on.plant(tiny_bundle("openvino"))])
        rounds, keys = on.journal.rounds, list(on.contenders.entries())

        assert on.contenders.unmeasured() == []
    anchor = next(iter(rounds[0].calls))
    quick = [one for one in rounds if anchor in one.calls]
    assert len(keys) == 4
    assert all(sum(key in one.calls for one in quick) >= QUICK_ROUNDS for key in keys)
    assert max(len(one.calls) for one in quick[:QUICK_ROUNDS]) <= 3


def test_the_last_run_holds_the_best_with_fewer_threads_and_more_threads_must_always_be_faster(
    tmp_path, tiny_bundle, monkeypatch
):
    monkeypatch.setattr(run, "FINALISTS", 1)
    with stage(tmp_path) as on:
        one = on.plant(tiny_bundle("onnx"))
        on.measured(*[{Entry(one, ONE): 0.002, Entry(one, TWO): 0.001}] * QUICK_ROUNDS)
        on.measured(*[{Entry(one, ONE): 0.00102, Entry(one, TWO): 0.001}] * QUICK_ROUNDS, sitting=2)
        picked = on.tuning.run([one])
        last = [seen for seen in on.journal.rounds if seen.sitting == picked.sitting]

    assert set(last[0].calls) == {Entry(one, ONE).key, Entry(one, TWO).key}
    assert picked.pick == Entry(one, ONE).key


def test_bundles_are_measured_as_soon_as_they_are_exported(tmp_path):
    with stage(tmp_path) as on:
        on.tuning.run([Candidate("onnx", "fp32"), Candidate("openvino", "fp16")])
        kinds = [type(event).__name__ for event in on.journal.events]

    assert kinds.index("Round") < len(kinds) - 1 - kinds[::-1].index("Exported")


def test_a_stopped_measurement_goes_on_with_what_is_missing(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        first, second = on.plant(tiny_bundle("onnx")), on.plant(tiny_bundle("openvino"))
        on.measured(*[{Entry(first, how): 0.001 for how in on.contenders.settings}] * QUICK_ROUNDS)
    with stage(tmp_path) as again:
        again.tuning.run([first, second])
        later = again.journal.rounds[QUICK_ROUNDS:]

    assert {Entry(second, how).key for how in again.contenders.settings} < set(later[0].calls)
    assert set(later[0].calls) - {Entry(first, ONE).key} == {
        Entry(second, how).key for how in again.contenders.settings
    }
    assert later[0].sitting == 2


def test_a_bundle_that_its_engine_refuses_does_not_end_the_run(tmp_path, tiny_bundle):
    broken = shutil.copytree(tiny_bundle("openvino"), tmp_path / "broken")
    (broken / "model.xml").write_bytes(b"no graph")
    sign_again(broken)
    with stage(tmp_path) as on:
        kept, lost = on.plant(tiny_bundle("onnx")), on.plant(broken)
        picked = on.tuning.run([lost, kept])
        refused = on.journal.refused

    assert picked.pick.startswith("onnx fp32")
    assert "openvino refuses" in refused["openvino fp32, 1 thread"]


def test_an_export_that_fails_does_not_end_the_run_and_is_not_tried_again(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        kept, lost = on.plant(tiny_bundle("onnx")), Candidate("onnx", "int8")
        on.tuning.run([kept, lost])
        refused = [event for event in on.journal.events if isinstance(event, Refused)]

    assert [event.what for event in refused] == ["onnx int8"]
    assert "needs calibration images" in refused[0].why
    with stage(tmp_path) as again:
        again.tuning.run([kept, lost])

        assert sum(isinstance(event, Refused) for event in again.journal.events) == 1


class Sorting(Net):
    """A network whose operator LiteRT does not know."""

    def forward(self, image):
        return torch.sort(super().forward(image), 1).values


@pytest.mark.slow
def test_a_target_that_cannot_do_it_takes_no_other_of_its_group_with_it(tmp_path):
    require("tflite")
    with stage(tmp_path) as on:
        able, odd = Candidate("onnx", "fp32"), Candidate("tflite", "fp32")
        failed = replace(on.workshop, model=PyTorchModel(from_module(Sorting().eval()))).make([odd, able], Silent())

        assert on.workshop.take_over(able) is not None
    assert list(failed) == [odd]
    assert "\n" not in failed[odd]


def test_a_used_budget_exports_nothing_more_but_still_picks(tmp_path, tiny_bundle):
    with stage(tmp_path, budget=0.001) as on:
        kept, late = on.plant(tiny_bundle("onnx")), Candidate("openvino", "fp32")
        picked = on.tuning.run([kept, late])

        assert list(on.contenders.bundles) == [kept]
        assert on.tuning.considered == [kept, late]
    assert picked.pick.startswith("onnx fp32")


def test_bundles_near_the_best_are_tried_without_single_passes(tmp_path, tiny_bundle):
    records = (PassRecord(name="SplitConcat", sites=3, max_relative_error=0.0),)
    with stage(tmp_path) as on:
        far = on.plant(tiny_bundle("openvino", size=128), passes=records)
        without = on.plant(tiny_bundle("onnx"), without="SplitConcat")
        near = on.plant(tiny_bundle("onnx"), passes=records)
        on.tuning.run([near, far])
        measured = {
            entry.candidate for entry in on.contenders.entries().values() if entry.key in on.contenders.scores()
        }

    assert on.tuning.considered == [near, far, without]
    assert measured == {near, far, without}
    assert without.name == "onnx fp32 without SplitConcat"


def test_throughput_is_measured_through_the_queue_with_both_profiles(tmp_path, tiny_bundle):
    with stage(tmp_path, objective="throughput") as on:
        on.tuning.run([on.plant(tiny_bundle("onnx"))])
        rounds = on.journal.rounds

    assert set(rounds[0].queued) == set(rounds[0].calls)
    assert {"onnx fp32, 1 thread", "onnx fp32, 1 thread for throughput"} <= set(rounds[0].queued)


def test_other_limits_pick_anew_from_the_same_measurements(tmp_path, tiny_bundle):
    small, large = tiny_bundle("onnx"), tiny_bundle("openvino", size=128)
    with stage(tmp_path) as on:
        tried = [on.plant(small), on.plant(large)]
        on.tuning.run(tried)
        measured = len(on.journal.rounds)
    with stage(tmp_path, objective="size") as again:
        again.tuning.run(tried)
        picks = [event for event in again.journal.events if isinstance(event, Picked)]

        assert len(picks) == 2
        assert picks[0].asked != picks[1].asked
        assert len(again.journal.rounds) <= measured + 8 + 6
    with stage(tmp_path, max_latency=1e-6) as strict, pytest.raises(GateFailed, match="comes nearest"):
        strict.tuning.run(tried)


def test_the_winner_is_copied_whole_and_an_earlier_winner_of_the_same_state_is_replaced(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        first = on.plant(tiny_bundle("onnx"))
        second = on.plant(tiny_bundle("onnx"), without="SplitConcat", created="2026-02-02T00:00:00+00:00")
        paths = [on.workshop.path(one) for one in (first, second)]
    for path in (*paths, paths[1]):
        dead(tmp_path, "tiny-onnx-fp32")  # a run that was killed right behind its copy
        report.publish(path, tmp_path, tmp_path / "tiny-tune", replace=False)

        assert sorted(one.name for one in tmp_path.iterdir()) == ["tiny-onnx-fp32", "tiny-tune"]
        copy = open_bundle(tmp_path / "tiny-onnx-fp32")
        assert (copy.path / MANIFEST).read_bytes() == (path / MANIFEST).read_bytes()


def test_a_bundle_of_somebody_else_is_refused_before_any_work(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        candidate = on.plant(tiny_bundle("onnx"))
        state = on.journal.folder
    shutil.copytree(tiny_bundle("onnx"), tmp_path / "tiny-onnx-fp32")

    with pytest.raises(UsageError, match="tiny-onnx-fp32 exists already"):
        report.refuse_foreign(tmp_path, "tiny", [candidate], state, replace=False)

    report.publish(state / "all-passes" / "tiny-onnx-fp32", tmp_path, state, replace=True)
    report.refuse_foreign(tmp_path, "tiny", [candidate], state, replace=False)


def test_force_refuses_a_folder_that_is_no_bundle_before_any_work(tmp_path, tiny_bundle):
    with stage(tmp_path) as on:
        candidate = on.plant(tiny_bundle("onnx"))
        state = on.journal.folder
    (tmp_path / "tiny-onnx-fp32").mkdir()
    (tmp_path / "tiny-onnx-fp32" / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match="is not a bundle, not replaced"):
        report.refuse_foreign(tmp_path, "tiny", [candidate], state, replace=True)

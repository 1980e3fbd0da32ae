"""`tune` finds the best bundle for a device: exported here, measured there."""

from __future__ import annotations

import pytest

from ghostdeploy import targets
from ghostdeploy.remote.fleet import Ways
from ghostdeploy.remote.place import DevicePlace
from tests.commands import assert_one_sentence, run


@pytest.fixture
def place(board):
    return DevicePlace(board.address, Ways(python=board.options[-1]))


def turns(place, paths, **options):
    """Returns rounds, dropped entries, and what was started."""
    from ghostdeploy.deploy.measure.bench_worker import Job

    seen, dropped, started = [], [], []
    most = options.pop("enough", 3)

    def heard(calls, queued):
        seen.append((calls, queued))
        return len(seen) >= most

    place.take_turns(
        {key: Job(path=str(path), threads=1, batch=1) for key, path in paths.items()},
        rounds=options.get("rounds", 3),
        queue=options.get("queue", False),
        on_round=heard,
        on_failure=lambda *found: dropped.append(found),
        on_start=started.append,
    )
    return seen, dropped, started


def test_entries_take_turns_there(place, tiny_bundle):
    paths = {"a": tiny_bundle("onnx"), "b": tiny_bundle("ncnn")}

    seen, dropped, started = turns(place, paths, queue=True)

    assert started == ["a", "b"]
    assert not dropped
    assert len(seen) == 3
    assert all(set(calls) == set(queued) == {"a", "b"} for calls, queued in seen)
    assert all(value > 0 for calls, _ in seen for value in calls.values())


def test_the_search_ends_them_when_it_knows_enough(place, board, tiny_bundle):
    seen, *_ = turns(place, {"a": tiny_bundle("onnx")}, rounds=500, enough=2)

    assert 2 <= len(seen) < 100
    assert board.rests()


def test_it_knows_what_runs_there(place):
    assert place.why_not(targets.find("onnx")) is None
    assert "not measured on devices" in place.why_not(targets.find("tensorrt"))
    assert place.cores >= 1
    assert place.name.startswith("ssh://board: ")


@pytest.mark.slow
def test_the_best_bundle_for_a_device(capsys, board, tmp_path):
    command = ("tune", "-t", "onnx", "--precision", "fp32", "--budget", "3", "-o", tmp_path, "--json")

    answer = run(capsys, *command, *board.options)

    assert answer.code == 0, answer.err
    assert answer.document["machine"].startswith("ssh://board: ")
    assert [path.name for path in tmp_path.glob("*-onnx-fp32")] == ["ghostnet_050-onnx-fp32"]


def test_an_emulated_device_is_refused(capsys):
    assert_one_sentence(run(capsys, "tune", "--on", "qemu://cortex-a72"), 2, "tune measures time")


def test_a_device_that_is_not_there(capsys, board):
    answer = run(capsys, "tune", "--on", "ssh://board:1", "--device-python", board.options[-1])

    assert_one_sentence(answer, 4, "takes no ssh connections")

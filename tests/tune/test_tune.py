"""`ghostdeploy tune` of a small model: killed in the middle, started again, asked again with other limits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from ghostdeploy import samples
from ghostdeploy.bundle.folder import MANIFEST, open_bundle
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.deploy.tune.journal import NAME
from tests.commands import assert_one_sentence, run
from tests.house.test_interruption import children_of, is_converter, wait_until

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(8, 600), nn.ReLU(), nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 10))
"""
"""A network of one and a half megabytes."""
PATIENCE = 300.0


def words(out):
    """Asks for a tuning of the network beside an output folder."""
    model = (f"{out.parent / 'net.py'}:net", "--image-size", "32", "--data", samples.evaluation_set())
    return ("tune", *model, "-t", "onnx", "--precision", "fp32", "--budget", "0.2", "-o", out)


def events(state):
    """The journal's whole lines."""
    try:
        data = (state / NAME).read_bytes()
    except OSError:
        return []
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def kill_when(state, enough, out):
    """Starts a run and kills it as soon as the journal says `enough`; returns the journal then."""
    command = [sys.executable, "-m", "ghostdeploy", *words(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + PATIENCE
        while not enough(events(state)):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.02)
        started = children_of(process)
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_converter, started)))  # one still writes what the next run would sweep
    return events(state)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """An output folder whose run was killed in its export and in its third round, and the journal at that moment."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    (out.parent / "net.py").write_text(NET)
    state = out / "net-tune"
    assert [one["event"] for one in kill_when(state, bool, out)] == ["request"]
    seen = kill_when(state, lambda found: sum(one["event"] == "round" for one in found) >= 3, out)
    assert not (out / "net-onnx-fp32").exists()
    return out, state, seen, (state / "all-passes" / "net-onnx-fp32" / MANIFEST).read_bytes()


@pytest.fixture(scope="module")
def finished(killed):
    """The same folder after a second run, and what that one said."""
    out = killed[0]
    command = [sys.executable, "-m", "ghostdeploy", *words(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout), done.stderr


def test_a_killed_run_goes_on_where_it_was(killed, finished):
    _, state, seen, manifest = killed

    assert events(state)[: len(seen)] == seen
    assert sum(one["event"] == "exported" for one in events(state)) == 1
    assert (state / "all-passes" / "net-onnx-fp32" / MANIFEST).read_bytes() == manifest
    assert events(state)[-1]["event"] == "picked"
    assert not list(state.rglob(".*"))


def test_the_winner_is_a_whole_bundle_beside_its_tables(finished):
    out, document, _ = finished

    assert verify(document["bundle"]).verdict == "passed"
    assert open_bundle(document["bundle"]).path == out / "net-onnx-fp32"
    assert sorted(path.name for path in out.iterdir()) == ["net-onnx-fp32", "net-tune"]
    assert json.loads((out / "net-tune" / "pareto.json").read_bytes()) == document
    assert "| onnx fp32 |" in (out / "net-tune" / "pareto.md").read_text()


def test_the_pick_is_the_best_of_the_last_run_but_for_more_threads(finished):
    _, document, _ = finished

    picked = next(one for one in document["final"] if one["ratio"] == 1.0)
    row = next(row for row in document["rows"] if row["place"] == "pick")
    # More threads may be faster in this run: they are picked only if they were in every run.
    threads = {one["entry"]: int(re.search(r"(\d+) thread", one["entry"])[1]) for one in document["final"]}
    assert all(one["ratio"] >= 1 for one in document["final"] if threads[one["entry"]] <= document["threads"])
    assert picked["entry"].startswith(f"onnx fp32, {document['threads']} thread")
    assert row["drop"] == 0.0
    assert row["speeds"][0]["ratio"] == 1.0


def test_progress_goes_to_stderr_with_the_best_so_far(finished):
    said = finished[2]

    assert "best so far onnx fp32, " in said
    assert "last run" in said


def test_a_finished_run_is_shown_again_at_once(finished, capsys):
    out, document, _ = finished
    before = (out / "net-tune" / NAME).read_bytes()

    shown = run(capsys, *words(out))

    assert shown.code == 0
    assert "time / pick (95 %)" in shown.out
    assert f'ghostdeploy.load("{document["bundle"]}", threads={document["threads"]})' in shown.out
    assert (out / "net-tune" / NAME).read_bytes() == before


def test_a_limit_that_nothing_meets_exits_1_and_names_the_nearest(finished, capsys):
    out = finished[0]

    answer = run(capsys, *words(out), "--max-size", "1MB", "--json")

    sizes = {f"{open_bundle(path.parent).size / 1e6:.2f}" for path in out.rglob(MANIFEST)}
    assert_one_sentence(answer, 1, "--max-size 1.00 MB", "onnx fp32", "comes nearest with ")
    # How many variants there was time for depends on the machine, and some are smaller.
    assert re.search(r"comes nearest with (\S+) MB", answer.err)[1] in sizes
    assert answer.document["error"]["kind"] == "GateFailed"


def test_another_request_on_the_same_folder_is_refused(finished, capsys):
    out = finished[0]

    answer = run(capsys, *words(out), "--image-size", "48")

    assert_one_sentence(answer, 2, "with other options", "--force")


def test_a_bundle_of_an_export_is_not_replaced(capsys, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    out = tmp_path / "out"
    (out / "net-onnx-fp32").mkdir(parents=True)
    (out / "net-onnx-fp32" / MANIFEST).write_text("{}")

    answer = run(capsys, *words(out))

    assert_one_sentence(answer, 2, "exists already", "--force")
    assert [path.name for path in out.iterdir()] == ["net-onnx-fp32"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-t", "onyx"), ("'onyx'", "did you mean onnx?")),
        (("--precision", "fp8"), ("'fp8'", "precisions are fp32, fp16")),
        (("-t", "onnx", "--precision", "fp16"), ("no target makes fp16", "onnx makes fp32")),
        (("--objective", "speed"), ("'speed'", "latency")),
        (("--max-size", "huge"), ("'huge'", "1.5MB")),
        (("--max-size", "0"), ("max size is 0",)),
        (("--max-latency", "0"), ("max latency is 0",)),
        (("--max-drop", "2"), ("max drop is 2.0",)),
        (("--budget", "0"), ("budget is 0 minutes",)),
        (("--name", "../up"), ("../up", "folder name")),
        (("gostnet_100", "-t", "onnx"), ("gostnet_100", "did you mean")),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_request_that_makes_no_sense_is_one_sentence_and_exit_2(options, said, capsys, tmp_path):
    answer = run(capsys, "tune", *options, "-o", tmp_path)

    assert_one_sentence(answer, 2, *said)
    assert list(tmp_path.iterdir()) == []


def test_every_option_has_help_text(capsys):
    shown = run(capsys, "tune", "--help").out

    for option in ("--precision", "--objective", "--max-size", "--max-latency", "--max-drop", "--budget", "--force"):
        assert option in shown

"""`eval` over adb: images are prepared here, computed there in shards, and measured by the code of home."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ghostdeploy import samples
from ghostdeploy.device import receipt
from tests.commands import assert_one_sentence, run
from tests.exported import sample_bundle

IMAGES = 40
FEW = 12
"""For trained networks, which an emulated core computes in seconds an image."""


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """The first images of the shipped set."""
    path = tmp_path_factory.mktemp("set") / "some.npz"
    with np.load(samples.evaluation_set()) as whole:
        np.savez(path, **{name: array[:FEW] for name, array in whole.items()})
    return path


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Images for bundles of a few layers."""
    path, rng = tmp_path_factory.mktemp("set") / "noise.npz", np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 256, (IMAGES, 20, 20, 3), np.uint8), labels=rng.integers(0, 10, IMAGES))
    return path


def evaluate(capsys, device, *words):
    """Returns the answers of home and of the device."""
    here = run(capsys, "eval", *words, "--json")
    return here, run(capsys, "eval", *words, "--json", "--on", device.address)


def without_device(document):
    return [{name: value for name, value in entry.items() if name != "device"} for entry in document]


@pytest.mark.slow
def test_a_trained_model_measures_what_it_measures_at_home(capsys, device, tmp_path, tmp_path_factory, some):
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "ncnn", precision="fp32")
    words = (path, "--data", some, "--receipt", tmp_path / "r.json")

    here, there = evaluate(capsys, device, *words)

    assert there.code == here.code == 0, there.err
    assert without_device(there.document) == here.document
    assert there.document[0]["device"]["model"] == "Example Phone 7"
    (found,) = receipt.read(tmp_path / "r.json")
    assert found.accuracy.top1.value == here.document[0]["top1"]["value"]
    assert (found.device.reached, found.latency, found.verdict) == ("adb", None, "passed")
    assert (device.runs(), device.parts()) == ([], [])


@pytest.mark.slow
@pytest.mark.full
def test_int8_is_compared_with_float_there(capsys, device, tmp_path_factory, some):
    ours, other = (sample_bundle(tmp_path_factory, "ghostnet_050", "ncnn", precision=one) for one in ("int8", "fp32"))

    here, there = evaluate(capsys, device, ours, "--data", some, "--reference", other, "--max-drop", "0.5")

    assert there.code == here.code == 0, there.err
    (found,), (wanted,) = there.document, here.document
    assert found["comparison"]["reference_top1"] == wanted["comparison"]["reference_top1"]
    assert found["verdict"] == wanted["verdict"] == "measured"
    assert abs(found["top1"]["value"] - wanted["top1"]["value"]) <= 1 / FEW  # INT8 kernels round as their cores do


@pytest.mark.parametrize("fields", [{}, {"batch": None}, {"batch": 3}, {"layout": "nhwc"}], ids=str)
def test_every_kind_of_input_gives_the_entry_of_home(capsys, device, tiny_bundle, noise, fields):
    path = tiny_bundle("ncnn", **fields)

    here, there = evaluate(capsys, device, path, path, "--data", noise)

    assert there.code == here.code == 0, there.err
    assert without_device(there.document) == here.document


@pytest.mark.slow
@pytest.mark.full
def test_a_task_of_its_own_is_measured_as_at_home(capsys, device, tmp_path_factory):
    path = sample_bundle(tmp_path_factory, "ghost_segment", "ncnn", precision="fp32")

    here, there = evaluate(capsys, device, path, "--data", samples.evaluation_set("ghost_segment"))

    assert there.code == here.code == 0, there.err
    assert there.document[0]["figures"] == pytest.approx(here.document[0]["figures"], abs=1e-4)


def test_a_shard_is_gone_before_the_next_one(capsys, device, tiny_bundle, noise, monkeypatch):
    from ghostdeploy.remote.adb import Adb

    seen, shell = [], Adb.push

    def push(adb, here, there):
        seen.append((here.stat().st_size, device.parts()))
        return shell(adb, here, there)

    path = tiny_bundle("ncnn")
    assert run(capsys, "verify", path, "--on", device.address).code == 0
    monkeypatch.setattr(Adb, "push", push)

    assert run(capsys, "eval", path, "--data", noise, "--on", device.address).code == 0

    assert len(seen) >= 4
    assert sum(size for size, _ in seen) < IMAGES * 3 * 16 * 16 * 4 + len(seen) * 100
    assert all(parts in ([], ["outputs"]) for _, parts in seen)
    kept = {one.name for one in (device.tmp / "ghostdeploy-objects").iterdir()}
    assert len(kept) == 4  # runner, graph, weights, golden inputs: nothing of the set


def test_a_bundle_of_another_engine_does_not_stop_the_others(capsys, device, tiny_bundle, noise):
    paths = tiny_bundle("onnx"), tiny_bundle("ncnn")

    there = run(capsys, "eval", *paths, "--data", noise, "--json", "--on", device.address)

    assert there.code == 4
    assert there.document[0]["bundle"] == str(paths[1])
    assert "runs ncnn bundles only" in json.dumps(there.document[1]["error"])


def test_a_reference_of_another_engine_is_one_sentence(capsys, device, tiny_bundle, noise):
    answer = run(
        capsys, "eval", tiny_bundle("ncnn"), "--data", noise, "--reference", tiny_bundle("onnx"), "--on", device.address
    )

    assert_one_sentence(answer, 4, "runs ncnn bundles only")
    assert device.runs() == []


@pytest.mark.parametrize("data", ["missing.npz", "labels.npz"])
def test_a_set_that_cannot_be_used_is_the_error_of_home(capsys, device, tiny_bundle, tmp_path, data):
    np.savez(tmp_path / "labels.npz", labels=np.zeros(3, np.int64))
    command = ("eval", tiny_bundle("ncnn"), "--data", tmp_path / data)

    here, there = run(capsys, *command), run(capsys, *command, "--on", device.address)

    assert_one_sentence(here, there.code)
    assert_one_sentence(there, here.code)
    assert device.runs() == []


@pytest.mark.parametrize("played", [{"free_kb": 1}, {"full": True}, {"full": True, "old": True}], ids=str)
def test_a_full_disk_there_is_one_sentence(capsys, device, tiny_bundle, noise, played):
    path = tiny_bundle("ncnn")
    assert run(capsys, "verify", path, "--on", device.address).code == 0  # what stays there is there
    device.play(**played)

    answer = run(capsys, "eval", path, "--data", noise, "--on", device.address)

    assert_one_sentence(answer, 4, "free" if "free_kb" in played else "No space left on device")
    assert (device.runs(), device.parts()) == ([], [])


def test_a_disk_that_fills_up_while_outputs_are_written_is_one_sentence(capsys, device, tiny_bundle, noise):
    path = tiny_bundle("ncnn")
    refusing, emulator = device.home / "refusing", " ".join(device.settings.emulator)
    full = 'set -- "$1" "$2" "$3" "$4" "$5" /dev/full "$7" "$8"'  # in place of OUTPUTS
    refusing.write_text(f'#!/bin/sh\n[ "$2" = replay ] && {full}\nexec {emulator} "$@"\n')
    refusing.chmod(0o755)
    device.play(emulator=[str(refusing)])

    answer = run(capsys, "eval", path, "--data", noise, "--on", device.address)

    assert_one_sentence(answer, 4, "cannot be written: disk full, or read-only", "free some memory and space there")
    assert device.runs() == []


def test_an_adb_that_loses_exit_codes_serves_as_well(capsys, device, tiny_bundle, noise):
    device.play(old=True)

    here, there = evaluate(capsys, device, tiny_bundle("ncnn"), "--data", noise)

    assert there.code == here.code == 0, there.err
    assert without_device(there.document) == here.document
    assert device.runs() == []


def test_a_connection_that_is_cut_anywhere_leaves_nothing(capsys, device, tiny_bundle, noise, tmp_path):
    path = tiny_bundle("ncnn")
    command = ("eval", path, "--data", noise, "--on", device.address)
    assert run(capsys, *command).code == 0
    device.play()
    assert run(capsys, *command).code == 0
    kinds = [(command.split()[0], re.sub(r"[0-9a-f]{12,}", "#", command)) for command in device.commands]
    places = {kind: number for number, kind in reversed(list(enumerate(kinds, 1)))}  # the first of each kind
    assert {kind for kind, _ in places} == {"shell", "push", "pull"}

    for place in [*places.values(), len(kinds)]:
        device.play(cut_at=place)
        answer = run(capsys, *command)
        assert_one_sentence(answer, 5)
        assert (place, device.runs()) == (place, [])


def test_outputs_that_come_back_otherwise_are_not_measured(capsys, device, tiny_bundle, noise):
    device.play(damage="outputs")

    answer = run(capsys, "eval", tiny_bundle("ncnn"), "--data", noise, "--on", device.address)

    assert_one_sentence(answer, 5, "came back damaged")


def test_inputs_that_arrive_otherwise_are_not_computed(capsys, device, tiny_bundle, noise):
    path = tiny_bundle("ncnn")
    assert run(capsys, "verify", path, "--on", device.address).code == 0
    device.play(damage="inputs")

    answer = run(capsys, "eval", path, "--data", noise, "--on", device.address)

    assert_one_sentence(answer, 5, "did not get a file whole")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_here_leaves_nothing_there(device, tiny_bundle, tmp_path, number):
    path, rng = tmp_path / "many.npz", np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 256, (4000, 20, 20, 3), np.uint8), labels=rng.integers(0, 10, 4000))
    words = [sys.executable, "-m", "ghostdeploy", "eval", tiny_bundle("ncnn"), "--data", path, "--on", device.address]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(words, env=os.environ, stdout=said, stderr=said)
        end = time.monotonic() + 120
        while not any(one.startswith("pull") for one in device.commands[6:]) and time.monotonic() < end:
            time.sleep(0.05)
        assert process.poll() is None

        process.send_signal(number)
        code = process.wait(timeout=60)

    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    assert b"Traceback" not in (tmp_path / "said").read_bytes()
    assert (device.runs(), device.parts()) == ([], [])

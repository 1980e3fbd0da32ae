"""`bench` over adb: the rounds and figures of home, every call by the phone's clock; no times of an emulated processor.

Here the runner is executed by an emulator. Where a phone is played, it is told otherwise, so times mean nothing: only
what is made of them is looked at.
"""

from __future__ import annotations

import json

import msgspec
import pytest

from ghostdeploy.deploy.measure.bench import Bench
from ghostdeploy.device import receipt
from tests.commands import assert_one_sentence, run

ROUNDS = ("--rounds", 8)


@pytest.fixture
def phone(device):
    """A device that is taken for a real one."""
    return device.play(executed_by=None)


@pytest.mark.slow
def test_bundles_are_measured_in_turns_with_the_figures_of_home(capsys, phone, tiny_bundle, tmp_path):
    paths = tiny_bundle("ncnn"), tiny_bundle("ncnn", size=15)
    words = ("bench", *paths, *ROUNDS, "--batch", 2, "--json", "--receipt", tmp_path / "r.json")

    there = run(capsys, *words, "--on", phone.address)

    assert there.code == 0, there.err
    document = there.document
    assert document.pop("device")["model"] == "Example Phone 7"
    found = msgspec.convert(document, type=Bench)
    assert found.machine.endswith("aarch64 NEON dot product")
    assert (found.threads, found.batch, found.rounds, found.rates.threads) == (1, 2, 8, 1)
    assert found.rates.macs_per_second > 0
    assert len(found.rates.bandwidths) == 5
    assert [one.engine for one in found.bundles] == ["ncnn 1.0.20261020 (static runner)"] * 2
    for one in found.bundles:
        assert 0 < one.median_ms <= one.p95_ms <= one.p99_ms
        assert one.first_result_ms > 0
        assert one.peak_bytes > 1 << 20
        assert one.images_per_second > 0
        assert one.limit.macs > 0
    told = receipt.read(tmp_path / "r.json")
    assert [len(one.latency.blocks_ms) for one in told] == [8, 8]
    assert [sum(map(len, one.latency.blocks_ms)) for one in told] == [one.calls for one in found.bundles]
    assert [one.latency.batch for one in told] == [2, 2]
    assert all(one.steady is not None and one.no_latency_because is None and one.verdict == "passed" for one in told)
    assert {"throttled", "load", "frequencies_mhz"} <= told[0].device.unread.keys()
    assert len(told[0].states) > 2 * 8
    assert run(capsys, "verify", tmp_path / "r.json", *paths).code == 0
    assert (phone.runs(), phone.parts()) == ([], [])


def test_an_emulated_processor_gives_no_times(capsys, device, tiny_bundle, tmp_path):
    answer = run(
        capsys, "bench", tiny_bundle("ncnn"), *ROUNDS, "--on", device.address, "--receipt", tmp_path / "r.json"
    )

    assert_one_sentence(answer, 2, "bench measures time", "adb://R58M123 is computed by qemu-aarch64-static")
    assert not (tmp_path / "r.json").exists()
    assert not [command for command in device.commands if "replay" in command or "bench" in command]
    assert device.runs() == []


def test_a_receipt_of_an_emulated_processor_says_why_it_has_no_latency(capsys, device, tiny_bundle, tmp_path):
    answer = run(capsys, "verify", tiny_bundle("ncnn"), "--on", device.address, "--receipt", tmp_path / "r.json")

    assert answer.code == 0, answer.err
    assert "emulated by qemu-aarch64-static: times mean nothing" in answer.out
    (found,) = receipt.read(tmp_path / "r.json")
    assert found.no_latency_because == "qemu-aarch64-static computes the processor"
    assert any("emulated" in rule for rule in found.validity)


def test_more_threads_than_the_device_has_cores_are_refused(capsys, phone, tiny_bundle):
    answer = run(capsys, "bench", tiny_bundle("ncnn"), *ROUNDS, "--threads", 500, "--on", phone.address)

    assert_one_sentence(answer, 2, "threads is 500, expected 1 to", phone.address)
    assert phone.runs() == []


def test_a_bundle_of_another_engine_is_one_sentence(capsys, phone, tiny_bundle):
    answer = run(capsys, "bench", tiny_bundle("ncnn"), tiny_bundle("onnx"), *ROUNDS, "--on", phone.address)

    assert_one_sentence(answer, 4, "runs ncnn bundles only")
    assert phone.runs() == []


@pytest.mark.parametrize("command", [("verify",), ("eval",), ("bench", *ROUNDS), ("doctor",)], ids=lambda one: one[0])
def test_a_python_for_a_device_without_one_is_refused(capsys, plain, tiny_bundle, command):
    paths = [tiny_bundle("ncnn")] if command[0] != "doctor" else []

    answer = run(capsys, command[0], *paths, *command[1:], "--on", plain.address, "--device-python", "/usr/bin/python3")

    assert_one_sentence(answer, 2, "adb://R58M123 runs without Python", "--device-python")
    assert plain.commands == []


def test_the_default_export_is_compared_at_home_only(capsys, plain, tiny_bundle):
    answer = run(capsys, "bench", tiny_bundle("ncnn"), "--against", "default", "--on", plain.address)

    assert_one_sentence(answer, 2, "--against exports and measures here")


@pytest.mark.slow
def test_the_table_is_that_of_home_and_a_cut_between_blocks_leaves_nothing(capsys, phone, tiny_bundle):
    command = ("bench", tiny_bundle("ncnn"), *ROUNDS, "--on", phone.address)
    assert run(capsys, "verify", *command[1:2], *command[4:]).code == 0  # what stays there is there
    phone.play()

    there = run(capsys, *command)

    assert there.code == 0, there.err
    assert "of limit" in there.out
    assert "8 interleaved rounds" in there.out
    assert f"on {phone.address}: Example Phone 7" in there.out
    places = [number for number, asked in enumerate(phone.commands, 1) if " bench " in asked]
    for place, late in ((places[0], False), (places[3], True)):
        phone.play(cut_at=place, cut_late=late)
        assert_one_sentence(run(capsys, *command), 5)
        assert (place, phone.runs()) == (place, [])


def test_a_runner_that_dies_while_it_is_measured_is_one_sentence(capsys, phone, tiny_bundle):
    killing, emulator = phone.home / "killing", " ".join(phone.settings.emulator)
    killing.write_text(f'#!/bin/sh\n[ "$2" = bench ] && kill -SEGV $$\nexec {emulator} "$@"\n')
    killing.chmod(0o755)
    phone.play(emulator=[str(killing)])

    answer = run(capsys, "bench", tiny_bundle("ncnn"), *ROUNDS, "--on", phone.address)

    assert_one_sentence(answer, 5, "ended by SIGSEGV")
    assert phone.runs() == []


def test_doctor_tells_what_android_and_the_runner_tell(capsys, device):
    there, shown = (run(capsys, "doctor", *more, "--on", device.address) for more in (("--json",), ()))

    assert there.code == shown.code == 0, there.err
    found = there.document
    runs = {one["target"]: one["can_run"] for one in found["targets"]}
    assert [target for target, can in runs.items() if can] == ["ncnn"]
    assert not any(one["can_export"] for one in found["targets"])
    assert found["cpu_features"] == {
        "NEON": True,
        "NEON dot product": True,
        "I8MM": False,
        "FP16 arithmetic": True,
        "SVE": False,
    }
    assert found["device"]["python"] == "none"
    assert "battery at 83 %, charging; thermal status light" in json.dumps(found["machine"])
    assert "Cortex-A76" in shown.out
    assert device.runs() == []


def test_tune_needs_python_there(capsys, plain):
    answer = run(capsys, "tune", "--on", plain.address)

    assert_one_sentence(answer, 4, "adb://R58M123 has no Python, which tune needs there")

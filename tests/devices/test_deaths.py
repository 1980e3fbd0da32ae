"""An engine that dies is a result: the sentence names it, the processor, and what would run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from ghostdeploy.device.deaths import explain, signal_of
from ghostdeploy.device.jobs import Job, Order
from ghostdeploy.device.probe import probe
from ghostdeploy.device.supervise import work
from ghostdeploy.errors import ExportFailed, UnsupportedHardware

OLD = msgspec.structs.replace(
    probe(), architecture="aarch64", processor="4 × Cortex-A72", features=("fp", "asimd", "crc32")
)


@pytest.mark.parametrize("code", [-signal.SIGILL, 128 + signal.SIGILL])
def test_an_illegal_instruction_names_what_the_core_lacks(code):
    found = explain(code, "onnxruntime 1.21.0", OLD, "")

    assert isinstance(found, UnsupportedHardware)
    assert "onnxruntime 1.21.0 stopped at an instruction that 4 × Cortex-A72" in found.message
    assert "without LSE atomics, NEON dot product, FP16 arithmetic" in found.message
    assert "-t ncnn" in found.hint


def test_too_little_memory():
    assert "for want of memory" in explain(-signal.SIGKILL, "openvino 2026.4.1", OLD, "").message


def test_other_ends_keep_the_last_word():
    crashed, left = explain(-signal.SIGSEGV, "ncnn 1", OLD, ""), explain(3, "ncnn 1", OLD, "no idea")

    assert isinstance(crashed, ExportFailed)
    assert "ncnn 1 ended by SIGSEGV on 4 × Cortex-A72" in crashed.message
    assert left.message.endswith("with code 3 on 4 × Cortex-A72: no idea")


def test_codes_that_are_no_signal():
    assert signal_of(0) is None
    assert signal_of(3) is None
    assert signal_of(1000) is None


TASKS = Path("/proc/self/task")


def kill_workers(number):
    """Kills the children of this process that do a job; others, such as a server of other tests, stay."""
    for task in TASKS.iterdir():
        for child in (task / "children").read_text().split():
            if b"ghostdeploy.device.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), number)


@pytest.mark.skipif(not TASKS.exists(), reason="Linux lists a process's children")
def test_a_process_that_dies_in_the_middle_is_a_failure_and_the_next_job_runs(tiny_bundle):
    path, events = str(tiny_bundle("onnx")), []

    def send(event):
        events.append(event)
        if event.started == "load":
            kill_workers(signal.SIGILL)

    jobs = (Job(command="time", bundles=(path,), rounds=8), Job(command="verify", bundles=(path,)))
    work(Order(where="ssh://x", reached="ssh", emulator=None, jobs=jobs, seconds=300.0), send)

    (failed,) = [event for event in events if event.failed is not None]
    assert failed.job == 0
    assert "onnxruntime" in failed.failed.message
    assert "SIGILL" in failed.failed.message
    (result,) = [event for event in events if event.result is not None]
    assert (result.job, result.result["verdict"]) == (1, "passed")


def test_a_job_without_an_answer_in_time(tiny_bundle):
    events = []
    jobs = (Job(command="time", bundles=(str(tiny_bundle("onnx")),), rounds=2000),)

    work(Order(where="ssh://x", reached="ssh", emulator=None, jobs=jobs, seconds=3.0), events.append)

    (failed,) = [event for event in events if event.failed is not None]
    assert "gave no answer in 3 s" in failed.failed.message

"""What ends a command from outside leaves nothing behind, and its exit code says which signal it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import require

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 120.0
"""Seconds, on whatever machine."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found through Linux's /proc")


def start(out, *, ignoring=()):
    def inherit():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if number in ignoring else signal.SIG_DFL)

    words = [sys.executable, "-m", "ghostdeploy", "export", "-t", "onnx", "--out", str(out)]
    environment = os.environ | {"GHOSTDEPLOY_CACHE": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=inherit
    )


def children_of(process):
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return [int(number) for number in found]


def wait_until(said):
    end = time.monotonic() + PATIENCE
    while not (answer := said()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return answer


def is_converter(pid):
    try:
        return b"ghostdeploy.convert.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def converters(process):
    return [pid for pid in children_of(process) if is_converter(pid)]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_an_export_that_is_ended_leaves_nothing(number, tmp_path):
    require("onnx")
    process = start(tmp_path / "out")
    try:
        pids = wait_until(lambda: converters(process))
        process.send_signal(number)
        process.send_signal(number)  # as systemd and shells do
        said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()

    assert process.returncode == 128 + number, said
    assert "Traceback" not in said[1]
    wait_until(lambda: not any(map(is_converter, pids)))  # one that had no job yet leaves when its pipe closes
    assert list((tmp_path / "out").iterdir()) == []


def test_what_was_started_to_outlive_its_terminal_goes_on(tmp_path):
    require("onnx")
    process = start(tmp_path / "out", ignoring=[signal.SIGHUP])
    try:
        wait_until(lambda: converters(process))
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()

    assert process.returncode == 128 + signal.SIGTERM, said


def test_the_exit_code_holds_where_the_signal_met_code_compiled_from_text(tmp_path):
    """CPython would end by SIGINT instead: it meets dataclasses and the functions of torch.fx."""
    (tmp_path / "program.py").write_text(
        "import os, signal, sys\n"
        "from ghostdeploy.terminal import interruption\n"
        "interruption.heed()\n"
        "try:\n"
        "    exec('os.kill(os.getpid(), signal.SIGTERM)\\nwhile True: pass')\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(interruption.exit_code())\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}

    assert subprocess.run([sys.executable, "-m", "program"], env=environment).returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_python_loses_ends_the_command_at_its_next_stage(number, tmp_path):
    """What a destructor raises is printed and ignored."""
    (tmp_path / "program.py").write_text(
        "import os, signal, sys\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "from ghostdeploy.terminal import interruption\n"
        "from ghostdeploy.terminal.console import Bars\n"
        "interruption.heed()\n"
        "class Last:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        for _ in range(1000): pass\n"
        "Last()\n"
        "try:\n"
        "    print('went on', flush=True)\n"
        "    Bars().started('fold')\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(interruption.exit_code())\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}

    done = subprocess.run([sys.executable, "-m", "program"], env=environment, capture_output=True, text=True)

    assert "went on" in done.stdout
    assert done.returncode == 128 + number

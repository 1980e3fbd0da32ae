"""Ray: equal to one process, to the last bit, also when a worker is killed; silent, local, gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.deploy.prove.sharded import ray_cluster
from ghostdeploy.deploy.prove.sharded.ray_workers import Begun
from tests.commands import assert_one_sentence, run
from tests.conftest import require_package

COUNT = 128
"""Images: two are a piece."""
FAKE_TORCH = "import pathlib; pathlib.Path({!r}).write_text('imported'); raise ImportError('no torch here')"


@pytest.fixture(scope="module", autouse=True)
def ray_here():
    require_package("ray")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photographs that take a while to decode, so that a kill comes in the middle."""
    root = tmp_path_factory.mktemp("set")
    photographs = [np.asarray(Image.open(path).convert("RGB").resize((1200, 900))) for path in samples.photos()]
    for index in range(COUNT):
        folder = root / f"{index % 10}"
        folder.mkdir(exist_ok=True)
        pixels = np.roll(photographs[index % len(photographs)], 7 * index, axis=1)
        Image.fromarray(pixels).save(folder / f"{index:03}.jpg", quality=90)
    return root


def ours(leader):
    """Returns the processes of a session of ours: pid → command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray" in (text := (folder / "cmdline").read_bytes()) and str(leader).encode() in text + parents(folder):
                found[int(folder.name)] = text.replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
    return found


def parents(folder):
    """Returns the process ids above a process."""
    above = []
    while folder.name not in ("0", "1"):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        folder = Path("/proc") / fields[1]
        above.append(folder.name)
        if folder.name == "0":
            break
    return " ".join(above).encode()


class Watch(threading.Thread):
    """Looks at a run: who listens where; and kills one worker as soon as a piece is done."""

    def __init__(self, pid, state):
        super().__init__(daemon=True)
        self.pid, self.state, self.killed, self.listening, self.over = pid, state, None, set(), False
        self.niceness = None

    def run(self):
        while not self.over:
            found = ours(self.pid)
            self.listening |= listening(found)
            workers = [pid for pid, text in found.items() if "MapWorker" in text]
            if self.killed is None and workers and any(self.state.glob("*.piece")):
                self.killed, self.niceness = workers[0], os.getpriority(os.PRIO_PROCESS, workers[0])
                os.kill(self.killed, signal.SIGKILL)
            time.sleep(0.05)


def listening(pids):
    """Returns the addresses, hexadecimal, at which processes listen."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.mark.slow
def test_two_workers_equal_one_process_though_one_is_killed(tiny_bundle, data, tmp_path, capsys):
    bundle, state, mark = tiny_bundle("onnx"), tmp_path / "state", tmp_path / "torch-was-imported"
    fake = tmp_path / "fake" / "torch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(FAKE_TORCH.format(str(mark)))
    serial = run(capsys, "eval", bundle, "--data", data, "--json").document
    words = ("--data", data, "--workers", "ray", "--worker-count", "2", "--state", state, "--json")
    command = [sys.executable, "-m", "ghostdeploy", "eval", bundle, *words]
    environment = {**os.environ, "PYTHONPATH": str(fake.parent)}

    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    watch = Watch(process.pid, state)
    watch.start()
    out, err = process.communicate(timeout=500)
    watch.over = True
    watch.join()

    assert process.returncode == 0, err
    assert json.loads(out) == serial
    assert watch.killed is not None
    assert watch.niceness == os.getpriority(os.PRIO_PROCESS, 0)
    assert [line for line in err.splitlines() if not line.startswith(("warning: ", "note: ", "evaluate "))] == []
    assert not mark.exists(), "a worker imported torch"
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert watch.listening <= loopback
    assert not state.exists()
    assert ours(process.pid) == {}


def test_nobody_at_an_address_is_told_at_once(tiny_bundle, data, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    answer = run(capsys, "eval", tiny_bundle("onnx"), "--data", data, "--workers", f"ray:127.0.0.1:{port}")

    assert_one_sentence(answer, 4, f"no Ray cluster answers at 127.0.0.1:{port}", "ray start --head")


@pytest.mark.slow
def test_something_else_at_an_address_is_told_in_time(tiny_bundle, data, capsys, monkeypatch):
    monkeypatch.setattr(ray_cluster, "HEALTH_S", 3.0)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]

        answer = run(capsys, "eval", tiny_bundle("onnx"), "--data", data, "--workers", f"ray:127.0.0.1:{port}")

    assert_one_sentence(answer, 4, f"what answers at 127.0.0.1:{port} is no Ray cluster")


def test_without_ray_the_command_says_what_to_install(tiny_bundle, data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    answer = run(capsys, "eval", tiny_bundle("onnx"), "--data", data, "--workers", "ray")

    assert_one_sentence(answer, 4, "needs Ray", 'pip install "ghostdeploy[ray]"')


def test_a_piece_that_was_begun_twice_counts_as_done_again():
    begun = Begun()

    assert [begun.begin(start) for start in (0, 2, 0, 4, 0)] == [1, 1, 2, 1, 3]
    assert begun.again() == 1

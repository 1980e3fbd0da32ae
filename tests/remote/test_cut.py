"""A connection that ends anywhere leaves nothing on the device, and one sentence here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.remote.cargo import Cargo
from tests.commands import assert_one_sentence, run

PLACES = 10


@pytest.fixture
def bundle(tiny_bundle):
    return tiny_bundle("onnx")


def sent(bundle):
    """About as many bytes as a run sends."""
    cargo = Cargo()
    cargo.bundle(open_bundle(bundle), str(bundle))
    return sum(cargo.sizes().values())


@pytest.mark.parametrize("place", range(PLACES))
def test_a_connection_that_is_cut_leaves_nothing(capsys, server, bundle, monkeypatch, place):
    # The handshake takes 3 to 4 kB; then come the first program, the wheel and the bundle.
    at = 2000 if not place else 5000 + (sent(bundle) + 12000) * (place - 1) // (PLACES - 2)
    monkeypatch.setenv("GHOSTDEPLOY_SSH_COMMAND", server.cut_after(at))
    assert server.rests()
    shutil.rmtree(server.cache / "ghostdeploy", ignore_errors=True)  # everything must be sent
    before = server.listing()

    answer = run(capsys, "verify", bundle, *server.options)

    assert server.rests()
    assert answer.code in (4, 5), answer.err
    assert_one_sentence(answer, answer.code)
    assert server.listing() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_here_ends_there(server, bundle, number):
    environment = os.environ | {"GHOSTDEPLOY_SSH_COMMAND": server.command}
    words = [sys.executable, "-m", "ghostdeploy", "bench", bundle, "--rounds", "2000", *server.options]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(server.processes()) < 3 and time.monotonic() < end:  # supervisor, work, an engine's process
        time.sleep(0.05)
    assert server.processes()

    process.send_signal(number)
    process.wait(timeout=20)

    assert server.rests()

"""The device of these tests."""

from __future__ import annotations

import pytest

from tests.conftest import require
from tests.emulated import require_emulator
from tests.remote.adb_device import AndroidDevice
from tests.remote.board import board as running
from tests.runners import require_runner


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A running ssh server."""
    with running(tmp_path_factory.mktemp("board")) as found:
        yield found


@pytest.fixture
def board(server, monkeypatch):
    """The device, reached by the usual settings."""
    monkeypatch.setenv("GHOSTDEPLOY_SSH_COMMAND", server.command)
    return server


@pytest.fixture
def device(tmp_path, monkeypatch):
    """An Android device whose adb is on PATH; the runner works there, on an emulated core."""
    require("ncnn")
    require_runner()
    found = AndroidDevice(tmp_path / "device", require_emulator("cortex-a76").command([]))
    found.use(monkeypatch)
    return found


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """An Android device that is asked for nothing but commands of its shell."""
    found = AndroidDevice(tmp_path / "device", [])
    found.use(monkeypatch)
    return found

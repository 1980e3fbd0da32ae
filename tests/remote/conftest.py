"""The device of these tests."""

from __future__ import annotations

import pytest

from tests.remote.board import board as running


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

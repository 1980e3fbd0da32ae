"""A process that runs commands which die or run out of room, see `dying`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


class Commands:
    """Runs commands in forks of one process.

    Args:
        root: Changes below this folder count.
    """

    def __init__(self, process, root):
        self._process = process
        self.root = root

    def __call__(self, *words, at=None, delay=0.0, full=False):
        """Returns exit code, number of changes and what was said; see `dying`."""
        order = {"words": [*map(str, words)], "root": str(self.root), "at": at, "delay": delay, "full": full}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def done(self, *words):
        """Runs a command that must succeed and returns how many changes it made."""
        found = self(*words)
        assert found["code"] == 0, found
        return found["changes"]


@pytest.fixture(scope="module")
def dying(tmp_path_factory):
    """The process, once for a file of tests; conversions are kept, so that a second export of a model is quick."""
    cache = tmp_path_factory.mktemp("cache")
    environment = os.environ | {"GHOSTDEPLOY_CACHE": str(cache), "NO_COLOR": "1"}
    words = [sys.executable, "-m", "tests.robustness.dying"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def commands(dying, tmp_path):
    """Runs commands, see `Commands`; what they change lies in the test's folder."""
    return Commands(dying, tmp_path)


@pytest.fixture
def images(tmp_path):
    """Twenty labelled images."""
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=draw.integers(0, 256, (20, 24, 24, 3), np.uint8), labels=np.arange(20) % 10)
    return tmp_path / "set.npz"

"""Threads that wait sleep in commands, and wait as in an app where speed is measured."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ghostdeploy import isolation, waiting


@pytest.fixture
def unset(monkeypatch):
    """Neither variable is set, and what the test sets goes away after it."""
    for name in waiting.VARIABLES:
        monkeypatch.setenv(name, "recorded by monkeypatch, or it would not be undone")
        monkeypatch.delenv(name)
    monkeypatch.setattr(waiting, "_ours", [])


def test_threads_sleep_while_they_wait_but_not_where_speed_is_measured(unset):
    assert not waiting.VARIABLES.keys() & isolation.child_environment().keys()

    waiting.wait_asleep()

    assert waiting.VARIABLES.items() <= isolation.child_environment().items()
    assert not waiting.VARIABLES.keys() & waiting.measured_environment().keys()


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "7")])
def test_how_the_user_lets_threads_wait_stays(unset, monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    waiting.wait_asleep()

    for found in (isolation.child_environment(), waiting.measured_environment()):
        assert {key: found[key] for key in waiting.VARIABLES.keys() & found.keys()} == {name: value}


def test_a_command_sets_it_before_anything_is_imported_that_reads_it(tmp_path):
    code = (
        "import sys\n"
        "from ghostdeploy import waiting\n"
        "before = waiting.wait_asleep\n"
        "def seen():\n"
        "    print('torch' in sys.modules or 'numpy' in sys.modules, flush=True)\n"
        "    before()\n"
        "waiting.wait_asleep = seen\n"
        "from ghostdeploy.__main__ import main\n"
        "sys.argv = ['ghostdeploy', '--version']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "False"

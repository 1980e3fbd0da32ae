"""Threads that wait sleep in commands, and wait as in an app where speed is measured."""

from __future__ import annotations

import os
import subprocess
import sys

from ghostdeploy import isolation, waiting


def test_threads_sleep_while_they_wait_but_not_where_speed_is_measured(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(waiting, "_ours", [])
    assert "OMP_WAIT_POLICY" not in isolation.child_environment()

    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    waiting.wait_asleep()
    assert isolation.child_environment()["OMP_WAIT_POLICY"] == "ACTIVE"
    assert waiting.measured_environment()["OMP_WAIT_POLICY"] == "ACTIVE"

    monkeypatch.delenv("OMP_WAIT_POLICY")
    waiting.wait_asleep()
    assert isolation.child_environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in waiting.measured_environment()


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

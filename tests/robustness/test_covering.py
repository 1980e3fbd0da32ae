"""Inputs that reach new branches are damaged further: none crashes, hangs, or brings another error than ours.

Part of `make fuzz` alone, where atheris is installed: it has wheels for Linux on x86-64.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzzing

pytest.importorskip("atheris", reason="coverage-guided damage needs atheris, see the extra fuzz")

ROOT = Path(__file__).parents[2]
MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
RUNS = 3000
NAMES = ("boxes", "points", "pairs", "priors", "inputs", "golden", "signatures", "safetensors")


@pytest.mark.skipif(not MANY, reason="part of make fuzz")
@pytest.mark.parametrize("name", NAMES)
def test_guided_damage_is_read_or_refused(name):
    command = [sys.executable, "-m", "tests.robustness.covering", name, str(RUNS)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)

    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
    fuzzing.TALLY["damaged files"] += RUNS

"""Every engine passes on Arm cores what passed at home; the table of docs/devices.md is made by one command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.remote.emulator import CORES, wheels
from tests.conftest import require
from tests.emulated import require_emulator, run_python

ROOT = Path(__file__).parents[2]
ENGINES = [row.name for row in targets.ROWS if wheels.has_engine(row) and "int8" in row.precisions]


@pytest.mark.slow
@pytest.mark.parametrize("target", ENGINES)
def test_int8_of_every_engine_is_proven_on_a_core_without_dot_product(target, tiny_bundle):
    require(target)
    emulator = require_emulator("cortex-a72")
    folder = tiny_bundle(target, "int8")
    said = run_python(emulator, "-m", "ghostdeploy", "verify", str(folder), "--json", paths=[ROOT])

    (found,) = json.loads(said.stdout)
    assert (said.returncode, found["verdict"]) == (0, "passed"), said.stderr
    assert found["execution"]["isa"] == "aarch64 NEON"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("core", "precision", "level"),
    [
        ("cortex-a72", "fp32", "aarch64"),
        ("cortex-a72", "int8", "aarch64"),
        ("cortex-a76", "int8", "aarch64-dotprod"),
    ],
)
def test_a_network_compiled_here_is_proven_on_an_arm_core(core, precision, level, tmp_path):
    require("native")
    emulator = require_emulator(core)
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no compiler for aarch64 is here")
    made = gd.export(target="native", precision=precision, out=tmp_path, arch=(level,))
    said = run_python(emulator, "-m", "ghostdeploy", "verify", str(made.path), "--json", paths=[ROOT])

    (found,) = json.loads(said.stdout)
    assert (said.returncode, found["verdict"], made.manifest.verdict) == (0, "passed", "passed"), said.stderr


def test_the_docs_have_every_pair():
    page = (ROOT / "docs" / "devices.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    pairs = {(name, precision) for name in ENGINES for precision in targets.find(name).precisions}

    for sample in ("ghostnet_050", "g_ghost_regnetx_002"):
        assert {tuple(row[1:]) for row in rows if row[0] == sample} == pairs


@pytest.mark.full
@pytest.mark.slow
def test_every_target_precision_and_core_passes(tmp_path):
    for core in CORES:
        require_emulator(core)
    words = [sys.executable, ROOT / "benchmarks" / "arm_table.py", "--out", tmp_path]
    table = subprocess.run(words, capture_output=True, text=True, check=True).stdout

    rows = table.splitlines()[2:]
    assert len(rows) == 2 * sum(len(targets.find(name).precisions) for name in ENGINES)
    assert [row for row in rows if row.count(" dB") < len(CORES) or "**" in row] == []

"""An emulator has a name for what it is made of, describes its core, and runs programs on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ghostdeploy.errors import UnsupportedHardware, UsageError
from ghostdeploy.progress import Silent
from ghostdeploy.remote.emulator import CORES, Emulator, cores, prepare, recipe, wheels
from ghostdeploy.remote.emulator.emulator import Facts
from tests.emulated import require_emulator, run_python

ROOT = Path(__file__).parents[2]
FACTS = Facts(qemu="7.2", qemu_sha256="", system="", packages={}, wheels={}, wheels_sha256="")


def test_its_name_changes_with_whatever_it_is_made_of(monkeypatch, tmp_path):
    first = recipe.key()
    changed = tmp_path / "wheels.txt"
    changed.write_text(recipe.WHEELS.read_text().replace("numpy==", "numpy==1."))

    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert recipe.key() == first
    monkeypatch.setattr(recipe, "WHEELS", changed)
    second = recipe.key()
    monkeypatch.setattr(recipe, "LIBRARIES", ("libc6",))
    third = recipe.key()
    monkeypatch.setattr(recipe, "core_count", lambda: 99)
    assert len({first, second, third, recipe.key()}) == 4


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"GHOSTDEPLOY_EMULATOR": "/disk/arm", "XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/disk/arm"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/ghostdeploy/emulator"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/ghostdeploy/emulator"),
    ],
)
def test_it_lies_in_the_cache_or_where_the_variable_says(variables, folder, monkeypatch):
    for name in ("GHOSTDEPLOY_EMULATOR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert recipe.emulators_folder() == Path(folder)


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_a_relative_folder_is_refused(value, monkeypatch):
    monkeypatch.setenv("GHOSTDEPLOY_EMULATOR", value)

    with pytest.raises(UsageError, match=f"expected an absolute path, found '{value}'"):
        recipe.emulators_folder()


def test_an_unknown_core_is_told_the_known_ones():
    with pytest.raises(UsageError, match="unknown core 'cortex-a7'") as refused:
        prepare("cortex-a7")

    assert "cortex-a72" in refused.value.hint


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(recipe.platform, "machine", lambda: "riscv64")

    with pytest.raises(UnsupportedHardware, match="needs Linux on x86-64 or aarch64, this is Linux on riscv64"):
        prepare("cortex-a72")


@pytest.mark.parametrize(("core", "part", "dots"), [("a53", "0xd03", 0), ("a72", "0xd08", 0), ("a76", "0xd0b", 1)])
def test_each_core_is_described_as_the_kernel_does(core, part, dots, tmp_path):
    base = tmp_path / "base"
    (base / "usr").mkdir(parents=True)
    (base / "usr" / "a").write_text("shared")
    root = tmp_path / "cores" / core
    cores.write_root(root, base, CORES[f"cortex-{core}"], 3)

    told = (root / "proc/cpuinfo").read_text()
    assert told.count(f"CPU part\t: {part}\n") == 3
    assert told.count("CPU implementer\t: 0x41\n") == 3
    assert told.count(" asimddp") == told.count(" atomics") == told.count(" asimdhp") == 3 * dots
    assert (root / "sys/devices/system/cpu/online").read_text() == "0-2\n"
    identity = int((root / "sys/devices/system/cpu/cpu2/regs/identification/midr_el1").read_text(), 16)
    assert identity == CORES[f"cortex-{core}"].midr
    tmp_path.joinpath("elsewhere").mkdir()
    for name in ("base", "cores"):
        tmp_path.joinpath(name).rename(tmp_path / "elsewhere" / name)
    assert (tmp_path / "elsewhere" / "cores" / core / "usr" / "a").read_text() == "shared"


def test_programs_there_get_nothing_that_is_meant_for_the_host(monkeypatch, tmp_path):
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LD_PRELOAD", "PYTHONHOME", "QEMU_CPU"):
        monkeypatch.setenv(name, "host")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    emulator = Emulator(core=CORES["cortex-a72"], folder=tmp_path, facts=FACTS)
    found = emulator.environment(tmp_path / "ours", variables={"LANG": "C"})

    assert "host" not in found.values()
    assert (found["OMP_NUM_THREADS"], found["LANG"]) == ("1", "C")
    assert found["PYTHONPATH"] == f"{tmp_path}/ours:{tmp_path}/site"
    assert emulator.command(["/bin/x", "y"]) == [
        *(f"{tmp_path}/qemu-aarch64-static", "-cpu", "cortex-a72", "-L", f"{tmp_path}/cores/cortex-a72"),
        *("/bin/x", "y"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_each_core_runs_python_and_knows_what_it_is(core):
    emulator = require_emulator(core.name)
    program = "import json, platform as p; print(json.dumps([p.machine(), open('/proc/cpuinfo').read()]))"
    said = run_python(emulator, "-c", program)

    machine, told = json.loads(said.stdout)
    assert (machine, told) == ("aarch64", cores.cpuinfo(core, recipe.core_count())), said.stderr
    flags = run_python(
        emulator, "-c", "from ghostdeploy import machine; print(machine.instruction_set())", paths=[ROOT]
    )
    assert flags.stdout.strip() == f"aarch64 NEON{' dot product' * (core.name == 'cortex-a76')}", flags.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "ai_edge_litert.interpreter", "ncnn"])
def test_every_engine_is_there_in_its_pinned_version(engine):
    emulator = require_emulator("cortex-a53")
    said = run_python(emulator, "-c", f"import {engine}; print('loaded')")

    assert said.stdout.splitlines()[-1:] == ["loaded"], (said.returncode, said.stderr)


def test_a_second_call_fetches_nothing(monkeypatch):
    require_emulator("cortex-a72")
    monkeypatch.setenv("PATH", "/nowhere")

    assert prepare("cortex-a53", listener=Silent()).facts.wheels == wheels.versions()

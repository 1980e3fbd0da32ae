"""Precision is read back from the compiled library: its table of steps, against the plan and the files beside it."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from ghostdeploy.convert.base import RefusedError
from ghostdeploy.runtimes.native import program
from tests.conftest import require


@pytest.fixture(autouse=True, scope="module")
def compiler():
    require("native")


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("native"), tmp_path / "copy")


def plan_of(folder):
    return program.read((folder / program.PLAN).read_bytes())


def read(folder, plan=None):
    from ghostdeploy.exporters.native.attestation import read_back

    return read_back(folder, plan or plan_of(folder))


def test_what_is_told_is_what_the_library_holds(folder):
    found = read(folder)

    assert found.how == "the compiled library holds 1 stem float32, 1 depthwise float32, 1 vector float32"
    assert (found.int8_layers, found.float_layers) == (0, 3)


def test_each_number_of_the_table_has_a_name(folder):
    from ghostdeploy.exporters.native.attestation import Told

    assert f"#define GHOST_STEP_NUMBERS {len(Told._fields)}\n" in (folder / "source" / "model.h").read_text()


@pytest.mark.parametrize(
    "change",
    [{"bits": 8}, {"kind": "dense"}, {"macs": 1}, {"arena": 64}, {"output": (1, 1, 1)}, {"group": 9}, {"rows": 2}],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_that_the_library_does_not_hold_is_refused(change, folder):
    plan = plan_of(folder)
    steps = list(plan.steps)
    place = next(at for at, step in enumerate(steps) if step.kind == "depthwise")
    steps[place] = msgspec.structs.replace(steps[place], **change)

    with pytest.raises(RefusedError, match=f"the compiled library has {steps[place].name} as .*, its plan has"):
        read(folder, msgspec.structs.replace(plan, steps=tuple(steps)))


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [("VECTOR", ", 0, 0, 1, 0}", ", 1, 0, 1, 0}"), ("DEPTHWISE", "{GHOST_DEPTHWISE,", "{GHOST_MAXIMUM,")],
    ids=["int8", "kernel"],
)
def test_a_library_whose_table_is_another_is_refused(kind, old, new, folder, tmp_path):
    """It tells the right identity, and computes something else."""
    from ghostdeploy.exporters.native.build import build

    sources = shutil.copytree(folder / "source", tmp_path / "altered")
    lines = (sources / "model.c").read_text().splitlines()
    place = next(at for at, line in enumerate(lines) if f"{{GHOST_{kind}," in line)
    assert old in lines[place]
    lines[place] = lines[place].replace(old, new)
    (sources / "model.c").write_text("\n".join(lines))
    ((level, name),) = plan_of(folder).libraries.items()
    (folder / name).unlink()
    build([one for one in sources.glob("*.c") if one.name != "main.c"], level, folder / name)

    with pytest.raises(RefusedError, match=r"the compiled library has .*, its plan has"):
        read(folder)


@pytest.mark.parametrize("name", [program.WEIGHTS, "source/model.c"])
def test_files_that_the_library_was_not_made_of_are_refused(name, folder):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(RefusedError, match=r"lib/.*was compiled from other tables or weights than those beside it"):
        read(folder)


def test_a_library_for_another_processor_is_held_against_the_files_too(folder):
    plan = plan_of(folder)
    ((level, name),) = plan.libraries.items()
    (folder / "lib" / "other.so").write_bytes((folder / name).read_bytes().replace(plan.identity.encode(), b"0" * 64))
    libraries = {level: name, "other": "lib/other.so"}

    with pytest.raises(RefusedError, match=r"lib/other.so was compiled from other tables"):
        read(folder, msgspec.structs.replace(plan, libraries=libraries))


def test_nothing_for_this_processor_is_said(folder, monkeypatch):
    from ghostdeploy.exporters.native import attestation

    monkeypatch.setattr(attestation, "architecture", lambda: "riscv64")

    assert read(folder).how.endswith("no library for this processor was asked for")

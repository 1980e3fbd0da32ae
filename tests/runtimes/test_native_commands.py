"""Native bundles from the command line: what is refused says why in one sentence; every command reads the plan."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest

from ghostdeploy import machine
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.runtimes.native import program
from tests.commands import assert_one_sentence, run
from tests.conftest import require

MISSING = """
from torch import nn

def net():
    layers = nn.Conv2d(3, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    names = ("features", "bend", "pool", "flat", "head")
    model = nn.Sequential()
    for name, layer in zip(names, layers):
        model.add_module(name, layer)
    return model
"""


@pytest.fixture(autouse=True, scope="module")
def compiler():
    require("native")


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("native"), tmp_path / "copy")


def altered(path, name, data):
    """Changes a file of a bundle, whose manifest lists it as it is now."""
    manifest = bundles.open_bundle(path).manifest
    (path / name).write_bytes(data)
    files = tuple(writing.describe_file(path, record.path) for record in manifest.files)
    (path / bundles.MANIFEST).write_bytes(encode(msgspec.structs.replace(manifest, files=files)))


def library_of(path):
    return next((path / "lib").iterdir())


@pytest.mark.parametrize("command", ["verify", "diagnose"])
def test_a_processor_without_the_instructions_is_refused_with_the_arch_that_helps(
    command, tiny_bundle, capsys, monkeypatch
):
    flags = frozenset(program.LEVELS["x86-64"]["x86-64-v3"])
    path = tiny_bundle("native")
    plan = json.loads((path / program.PLAN).read_text())
    monkeypatch.setattr(program, "chosen", _only(program.chosen, plan["libraries"]))
    monkeypatch.setattr(machine, "architecture", lambda: "x86-64")
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)

    answer = run(capsys, command, path, *([path] if command == "diagnose" else []))

    assert_one_sentence(answer, 4, "was built for", "this processor is x86-64-v3", "export -t native --arch x86-64-v3")


def _only(chosen, built):
    """Returns `chosen` for a processor that none of a bundle's libraries fits."""
    return lambda names, *where: None if set(names) == set(built) else chosen(names, *where)


@pytest.mark.parametrize("name", ["library", program.PLAN, program.WEIGHTS])
@pytest.mark.parametrize("command", ["verify", "inspect", "bench"])
def test_what_was_altered_on_disk_is_refused_by_its_hash(command, name, copied, capsys):
    path = library_of(copied) if name == "library" else copied / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    assert_one_sentence(run(capsys, command, copied), 3, path.name, "SHA-256")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: {}, "missing required field"),
        (lambda plan: plan | {"schema": 7}, "schema 7, expected 1"),
        (lambda plan: plan | {"libraries": dict.fromkeys(plan["libraries"], "lib/absent.so")}, "lib/absent.so"),
        (lambda plan: plan | {"identity": "0" * 64}, "of another network than its plan"),
    ],
    ids=["empty", "schema", "library", "identity"],
)
def test_a_plan_that_is_none_is_told_in_one_sentence(change, words, copied, capsys):
    plan = json.loads((copied / program.PLAN).read_text())
    altered(copied, program.PLAN, json.dumps(change(plan)).encode())

    assert_one_sentence(run(capsys, "verify", copied), 3, words)


def test_a_library_that_is_none_is_told_in_one_sentence(copied, capsys):
    altered(copied, f"lib/{library_of(copied).name}", b"no library")

    assert_one_sentence(run(capsys, "verify", copied), 3, "copy")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*random weights")
def test_an_operator_without_a_kernel_is_named_with_its_module_before_anything_is_compiled(tmp_path, capsys):
    (tmp_path / "net.py").write_text(MISSING)

    answer = run(
        capsys, "export", f"{tmp_path / 'net.py'}:net", "-t", "native", "--image-size", "16", "--out", tmp_path / "out"
    )

    assert_one_sentence(answer, 5, "native has no kernel for Erf", "behind the module features")
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".log"]
    assert " -c " not in next((tmp_path / "out").glob("*.log")).read_text()

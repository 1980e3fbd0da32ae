"""`--force` replaces a folder only where every file in it, at every depth, is the bundle's own."""

from __future__ import annotations

import os
import shutil

import pytest

from ghostdeploy.bundle.placing import foreign_in
from ghostdeploy.bundle.staging import staging
from ghostdeploy.errors import UsageError
from tests.commands import assert_one_sentence, run
from tests.staged import manifest

OURS = ("model.onnx", "golden.npz", "labels.txt", "kit/build.json", "engines/deep/one.engine")


@pytest.fixture
def bundle(tmp_path):
    """A bundle with files at several depths, all listed."""
    folder = tmp_path / "net"
    for name in OURS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("ours")
    (folder / "manifest.json").write_text(manifest(files=OURS))
    return folder


def contents(folder):
    return sorted((str(path.relative_to(folder)), path.is_file() and path.read_bytes()) for path in folder.rglob("*"))


def assert_not_replaced(folder, *words):
    before = contents(folder)
    with pytest.raises(UsageError) as caught, staging(folder.parent, folder.name, force=True):
        pytest.fail("the block must not run")
    assert contents(folder) == before
    assert "elsewhere" in caught.value.hint
    for word in words:
        assert word in caught.value.message


def in_place_of(name, make):
    """Puts something of the user's where a listed file was."""

    def work(folder):
        (folder / name).unlink()
        make(folder / name)

    return work


def put(name):
    def work(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("years of work")

    return work


FOREIGN = {
    "a file": ("thesis.tex", put("thesis.tex")),
    "a file with a payload's beginning": ("model.py", put("model.py")),
    "a payload of another target": ("model.xml", put("model.xml")),
    "a file in a listed folder": ("kit/notes.txt", put("kit/notes.txt")),
    "a file far below": ("engines/deep/notes.txt", put("engines/deep/notes.txt")),
    "a listed name elsewhere": ("kit/labels.txt", put("kit/labels.txt")),
    "a folder": ("model.runs", put("model.runs/log")),
    "an empty folder": ("empty", lambda folder: (folder / "empty").mkdir()),
    "a folder in place of a listed file": ("labels.txt", in_place_of("labels.txt", lambda one: put("mine")(one))),
    "a link in place of a listed file": ("labels.txt", in_place_of("labels.txt", lambda one: one.symlink_to("x"))),
    "a pipe in place of a listed file": ("labels.txt", in_place_of("labels.txt", os.mkfifo)),
    "a folder named as a system file": (".DS_Store", put(".DS_Store/mine.txt")),
    "a link in place of a listed folder": (
        "kit",
        lambda folder: ((folder / "kit").rename(folder.parent / "kit"), (folder / "kit").symlink_to("../kit")),
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_the_manifest_does_not_list_is_not_replaced(kind, bundle):
    name, add = FOREIGN[kind]
    add(bundle)

    assert_not_replaced(bundle, f"holds {name} besides the bundle's own files")


@pytest.mark.parametrize("gone", [(), ("model.onnx", "kit/build.json")], ids=["whole", "incomplete"])
def test_a_bundle_is_replaced_with_what_file_managers_left_in_it(gone, bundle):
    for name in gone:
        (bundle / name).unlink()
    for name in (".DS_Store", "kit/Thumbs.db", "engines/deep/desktop.ini"):
        (bundle / name).write_text("a file manager's")
    with staging(bundle.parent, "net", force=True) as folder:
        (folder / "manifest.json").write_text(manifest("new"))

    assert [path.name for path in bundle.parent.rglob("*")] == ["net", "manifest.json"]


OF_OTHERS = {
    "a web app": '{"name": "a web app", "icons": []}',
    "all our keys, other files": '{"schema": 1, "name": "data", "target": "all", "files": ["labels.txt"]}',
    "files without a hash": '{"schema": 1, "name": "data", "target": "all", "files": [{"path": "labels.txt"}]}',
    "JSON with comments": '// my training run\n{"lr": 0.1}\n',
    "not JSON": "name: net\n",
    "a list": "[]",
    "empty": "",
    "zeros": "\0" * 100,
    "deep": "[" * 100_000,
    "our first keys": '{"schema": 1, "name": "net", "created": "2026-01-01", "tools": {"other": "1"',
}


@pytest.mark.parametrize("kind", OF_OTHERS)
def test_another_programs_manifest_makes_no_bundle(kind, tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "manifest.json").write_text(OF_OTHERS[kind])
    (tmp_path / "net" / "labels.txt").write_text("years of work")

    assert_not_replaced(tmp_path / "net", "is not a bundle, not replaced")


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "garbage at its end": lambda data: data[:-30] + b"\xff" * 30,
    "another type": lambda data: data.replace(b'"files": [', b'"files": ["", '),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("foreign", [None, "model.pth", "kit/notes.txt", "engines/one.engine"])
def test_a_damaged_bundle_is_replaced_where_all_in_it_has_an_exports_names(kind, foreign, tiny_bundle, tmp_path):
    folder = shutil.copytree(tiny_bundle("onnx"), tmp_path / "net")
    whole = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(DAMAGE[kind](whole))
    assert (folder / "manifest.json").read_bytes() != whole
    if foreign is None:
        assert foreign_in(folder) == []
        return
    put(foreign)(folder)

    assert_not_replaced(folder, f"holds {foreign.partition('/')[0]}")


def test_the_command_keeps_a_checkpoint_beside_a_manifest_of_ones_own(capsys, tmp_path):
    folder = tmp_path / "ghostnet_050-onnx-fp32"
    folder.mkdir()
    (folder / "manifest.json").write_text(OF_OTHERS["JSON with comments"])
    (folder / "model.pth").write_text("three weeks of training")
    before = contents(folder)

    answer = run(capsys, "export", "-t", "onnx", "-o", tmp_path, "--force")

    assert_one_sentence(answer, 2, f"{folder} exists and is not a bundle, not replaced", "move it elsewhere")
    assert contents(folder) == before

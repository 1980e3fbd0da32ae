"""Names and paths that no file can have are refused in a sentence before any work; the longest possible are taken."""

from __future__ import annotations

import os

import pytest

from ghostdeploy.bundle.staging import refuse_existing, staging, workspace
from ghostdeploy.bundle.workspaces import put_back
from ghostdeploy.errors import OutputError, UsageError
from ghostdeploy.files import fitting
from tests.commands import assert_one_sentence, run
from tests.staged import names, read, write

LONG = "n" * 300


def longest(character, ending="-onnx-fp32"):
    return fitting(character * 255, ending, 255)


@pytest.mark.parametrize("character", ["a", "é", "炮", "😀"])
def test_the_longest_name_that_a_folder_can_have_is_a_bundles(character, tmp_path):
    name = longest(character)
    assert 252 <= len(os.fsencode(name)) <= 255
    with staging(tmp_path, name) as folder:
        write(folder)
    with staging(tmp_path, name, force=True) as folder:
        write(folder, "newer")

    assert names(tmp_path) == [name]
    assert read(tmp_path / name) == "newer"


@pytest.mark.parametrize("character", ["a", "é", "炮", "😀"])
def test_one_character_more_is_refused_with_both_lengths(character, tmp_path):
    name = character + longest(character)
    with pytest.raises(UsageError, match=f"has {len(os.fsencode(name))} bytes, expected at most 255") as caught:
        refuse_existing(tmp_path / "not there yet" / name, force=False)

    assert "--name" in caught.value.hint
    assert len(caught.value.message) < 150


def test_a_bundle_put_aside_keeps_a_name_that_fits(tmp_path):
    name = longest("炮")
    with workspace(tmp_path, name) as work:
        (work / "old" / name).mkdir(parents=True)
        write(work / "old" / name, "old")
        (tmp_path / name).mkdir()
        put_back(work, tmp_path / name)

    [aside] = [one for one in names(tmp_path) if one != name]
    assert aside.startswith("炮" * 70)
    assert ".before-" in aside
    assert read(tmp_path / aside) == "old"


def test_a_path_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"path has 4.* bytes, expected at most"):
        refuse_existing(tmp_path.joinpath(*["a" * 200] * 20, "net"), force=False)


@pytest.mark.parametrize(
    ("make", "below", "said"),
    [
        (lambda out: out.write_text("mine"), "", "it is a file, expected a folder"),
        (lambda out: out.write_text("mine"), "deep/er", "out is a file, expected a folder"),
        (lambda out: out.symlink_to("nowhere"), "", "it is a broken link, expected a folder"),
        (lambda out: out.symlink_to("out"), "", "it is a broken link, expected a folder"),
        (os.mkfifo, "", "it is a file, expected a folder"),
    ],
    ids=["file", "below a file", "link", "loop", "pipe"],
)
def test_what_is_no_folder_is_named_as_what_it_is(make, below, said, tmp_path):
    make(tmp_path / "out")

    with pytest.raises(OutputError, match=said):
        refuse_existing(tmp_path / "out" / below / "net", force=False)
    with pytest.raises(OutputError, match=said), workspace(tmp_path / "out" / below, "net"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["export", "plan"])
def test_export_refuses_before_any_work(more, capsys, tmp_path):
    (tmp_path / "file").touch()
    words = ("export", "-t", "onnx", *more)

    answer = run(capsys, *words, "-o", tmp_path, "--name", LONG)
    assert_one_sentence(answer, 2, "has 310 bytes, expected at most 255", "shorter --name")
    answer = run(capsys, *words, "-o", tmp_path / "file", "--name", "net")
    assert_one_sentence(answer, 4, "it is a file, expected a folder")

    assert names(tmp_path) == ["file"]


def test_tune_refuses_before_any_work(capsys, tmp_path):
    answer = run(capsys, "tune", "-t", "onnx", "-o", tmp_path, "--name", LONG)

    assert_one_sentence(answer, 2, "has 310 bytes, expected at most 255")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ["verify", LONG],
        ["inspect", LONG],
        ["bench", LONG],
        ["eval", LONG, "--reference", LONG],
        ["diagnose", LONG],
        ["build", LONG],
        ["run", "BUNDLE", LONG + ".png"],
        ["eval", "BUNDLE", "--data", LONG],
        ["export", LONG],
        ["export", LONG + ".onnx", "-t", "onnx"],
        ["export", LONG + ".py:make", "-t", "onnx"],
        ["export", "-t", "onnx", "--weights", LONG],
        ["export", "-t", "onnx", "--labels", LONG],
        ["export", "-t", "onnx", "--int8", "--calib", LONG],
        ["export", "-t", "onnx", "-o", LONG],
    ],
    ids=lambda words: " ".join(word for word in words if LONG not in word),
)
def test_no_argument_is_too_long_for_a_sentence(words, capsys, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = tiny_bundle("onnx")

    answer = run(capsys, *(bundle if word == "BUNDLE" else word for word in words))

    assert answer.code in (2, 3, 4), answer.err
    assert_one_sentence(answer, answer.code)

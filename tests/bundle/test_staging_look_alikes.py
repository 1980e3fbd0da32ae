"""Only folders that carry our own marker are ever removed: look-alikes, links and other users' folders stay."""

from __future__ import annotations

import os

import pytest

from ghostdeploy.bundle.staging import staging
from ghostdeploy.bundle.workspaces import MARKER
from tests.staged import dead, fail_inside, names, write

LOOK_ALIKES = {
    "no marker": lambda folder: (folder / MARKER).unlink(),
    "a marker of another folder": lambda folder: (folder / MARKER).write_text((folder / MARKER).read_text() + "x"),
    "an empty marker": lambda folder: (folder / MARKER).write_text(""),
    "a marker that is a link": lambda folder: linked(folder / MARKER, os.symlink),
    "a marker with a second name": lambda folder: linked(folder / MARKER, os.link),
    "a marker that is a folder": lambda folder: ((folder / MARKER).unlink(), (folder / MARKER).mkdir()),
    "a marker that is a pipe": lambda folder: ((folder / MARKER).unlink(), os.mkfifo(folder / MARKER)),
}


def linked(marker, link):
    kept = marker.with_name("kept")
    marker.rename(kept)
    link(kept, marker)


@pytest.mark.parametrize("kind", LOOK_ALIKES)
@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_that_only_looks_like_ours_is_left_alone(kind, fails, tmp_path):
    folder = dead(tmp_path, "other", old="thesis")
    LOOK_ALIKES[kind](folder)
    before = sorted(str(path) for path in tmp_path.rglob("*"))

    if fails:
        with pytest.raises(KeyError):
            fail_inside(tmp_path)
    else:
        with staging(tmp_path, "net") as ours:
            write(ours)

    after = sorted(str(path) for path in tmp_path.rglob("*") if tmp_path / "net" not in (path, *path.parents))
    assert after == before


@pytest.mark.parametrize(
    "name", [".x.tmp-1", ".x.tmp-1-0a1b2c3d", ".x.old-2", ".x.old-2-0a1b2c3d", ".tmp-3", "x.tmp-4"]
)
def test_hidden_folders_of_others_are_not_touched_whatever_their_name(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")

    with staging(tmp_path, "net") as folder:
        write(folder)

    assert names(tmp_path) == sorted([name, "net"])
    assert (tmp_path / name / "thesis.tex").read_text() == "years of work"


def test_a_link_to_a_workspace_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder = dead(tmp_path / "elsewhere", "other")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / folder.name).symlink_to(folder)

    with staging(tmp_path / "out", "net") as ours:
        write(ours)

    assert names(tmp_path / "out") == [folder.name, "net"]
    assert (folder / "new" / "other" / "model.onnx").read_bytes() == b"half"


def test_a_workspace_of_another_user_is_left_alone(tmp_path, monkeypatch):
    folder = dead(tmp_path, "other")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with staging(tmp_path, "net") as ours:
        write(ours)

    assert names(tmp_path) == [folder.name, "net"]


def test_the_working_folder_and_home_can_be_the_output_folder(tmp_path, monkeypatch):
    (tmp_path / ".x.tmp-1").mkdir()
    (tmp_path / ".x.old-2").mkdir()
    monkeypatch.chdir(tmp_path)

    with staging(type(tmp_path)(), "net") as ours:
        write(ours)

    assert names(tmp_path) == [".x.old-2", ".x.tmp-1", "net"]

"""A bundle exists whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from ghostdeploy.bundle.staging import staging, workspace
from ghostdeploy.errors import OutputError, UsageError
from tests.staged import dead, fail_inside, names, read, write


@pytest.fixture
def existing(tmp_path):
    (tmp_path / "net").mkdir()
    write(tmp_path / "net", "old")
    return tmp_path


def test_the_bundle_appears_only_when_the_block_ends(tmp_path):
    out = tmp_path / "made" / "on the way"
    with staging(out, "net") as folder:
        write(folder)
        assert not (out / "net").exists()
        assert folder.parents[1].name.startswith(".net.tmp-")

    assert names(out) == ["net"]
    assert read(out / "net") == "new"


def test_an_error_inside_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        fail_inside(tmp_path)

    assert names(tmp_path) == []


def test_an_existing_bundle_is_refused_before_any_work(existing):
    with pytest.raises(UsageError, match="exists already") as caught, staging(existing, "net"):
        pytest.fail("the block must not run")

    assert "--force" in caught.value.hint
    assert read(existing / "net") == "old"


def test_force_replaces_a_bundle_and_leaves_nothing_beside_it(existing):
    with staging(existing, "net", force=True) as folder:
        write(folder)
        assert read(existing / "net") == "old"

    assert read(existing / "net") == "new"
    assert names(existing) == ["net"]


def test_an_error_while_replacing_keeps_the_old_bundle(existing):
    with pytest.raises(KeyError):
        fail_inside(existing, force=True)

    assert read(existing / "net") == "old"
    assert names(existing) == ["net"]


def test_force_never_replaces_what_is_no_bundle(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "thesis.tex").write_text("years of work")

    with pytest.raises(UsageError, match="not a bundle"), staging(tmp_path, "net", force=True):
        pytest.fail("the block must not run")

    assert names(tmp_path / "net") == ["thesis.tex"]


def test_rubbish_of_a_killed_export_is_swept(tmp_path):
    dead(tmp_path, "other")

    with staging(tmp_path, "net") as folder:
        write(folder)

    assert names(tmp_path) == ["net"]


def test_rubbish_that_a_converter_still_writes_is_swept_by_the_next_export(tmp_path, monkeypatch):
    """A killed export's converter notices its end a moment later."""
    rubbish, remove = dead(tmp_path, "other"), os.rmdir

    def written_meanwhile(path, **given):
        if os.fspath(path) == os.fspath(rubbish) and not (rubbish / "late").exists():
            (rubbish / "late").write_text("x")
        remove(path, **given)

    monkeypatch.setattr(os, "rmdir", written_meanwhile)
    with staging(tmp_path, "net") as folder:
        write(folder)
    assert names(tmp_path) == [rubbish.name, "net"]

    monkeypatch.undo()
    with staging(tmp_path, "third") as folder:
        write(folder)
    assert names(tmp_path) == ["net", "third"]


def test_the_workspace_of_a_living_export_is_left_alone(tmp_path):
    theirs = dead(tmp_path, "other")
    handle = os.open(theirs, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with staging(tmp_path, "net") as folder:
            write(folder)
    finally:
        os.close(handle)

    assert names(tmp_path) == [theirs.name, "net"]


def test_another_export_cannot_sweep_our_open_workspace(tmp_path):
    with staging(tmp_path, "net") as ours:
        write(ours)
        with staging(tmp_path, "other") as theirs:
            write(theirs)
        assert ours.is_dir()

    assert names(tmp_path) == ["net", "other"]


def test_a_bundle_caught_between_two_moves_is_brought_back(tmp_path):
    dead(tmp_path, "net", old="old")

    with staging(tmp_path, "other") as folder:
        write(folder)

    assert names(tmp_path) == ["net", "other"]
    assert read(tmp_path / "net") == "old"


def test_an_old_copy_beside_its_successor_is_swept(existing):
    dead(existing, "net", old="older")

    with staging(existing, "other") as folder:
        write(folder)

    assert names(existing) == ["net", "other"]
    assert read(existing / "net") == "old"


def test_a_replaced_bundle_that_was_being_removed_at_the_kill_is_not_brought_back(existing):
    """Without its manifest it is no bundle any more, and would be taken for something of the user's."""
    program = (
        "import os, shutil, sys\nfrom pathlib import Path\n"
        "from ghostdeploy.bundle import workspaces\nfrom ghostdeploy.bundle.staging import staging\n"
        "from tests.staged import write\n"
        "def killed(path, **_):\n"
        "    next(Path(path).rglob('manifest.json'), Path('/none')).unlink(missing_ok=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "with staging(Path(sys.argv[1]), 'net', force=True) as folder:\n"
        "    write(folder)\n"
        "    workspaces.shutil.rmtree = killed\n"
    )
    done = subprocess.run([sys.executable, "-c", program, existing], check=False)
    assert done.returncode == -9
    assert read(existing / "net") == "new"

    with staging(existing, "other") as made:
        write(made)

    assert names(existing) == ["net", "other"]
    assert read(existing / "net") == "new"


def test_what_a_killed_export_had_moved_and_is_no_bundle_is_put_beside(existing):
    folder = dead(existing, "net", old="a bundle with notes")
    (folder / "old" / "net" / "notes.txt").write_text("years of work")

    with staging(existing, "other") as made:
        write(made)

    assert names(existing) == ["net", "net.before-0a1b2c3d", "other"]
    assert (existing / "net.before-0a1b2c3d" / "notes.txt").read_text() == "years of work"


def test_hidden_files_of_others_are_not_touched(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".notes").write_text("x")

    with staging(tmp_path, "net") as folder:
        write(folder)

    assert names(tmp_path) == [".git", ".notes", "net"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "file-size limit"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_a_write_that_fails_is_an_output_error_that_says_why(tmp_path, code, words):
    with pytest.raises(OutputError, match=words) as caught, staging(tmp_path, "net"):
        raise OSError(code, os.strerror(code))

    assert caught.value.exit_code == 4
    assert "--out" in caught.value.hint
    assert names(tmp_path) == []


def test_an_os_error_that_is_not_about_writing_passes_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), staging(tmp_path, "net") as folder:
        (folder / "absent").read_bytes()

    assert names(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_an_output_error(tmp_path):
    (tmp_path / "out").write_text("a file")

    with pytest.raises(OutputError, match="cannot be written"), staging(tmp_path / "out", "net"):
        pytest.fail("the block must not run")


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path):
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from ghostdeploy.errors import OutputError\nfrom ghostdeploy.bundle.staging import staging\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    with staging(Path(sys.argv[1]), 'net') as folder:\n"
        "        (folder / 'model.bin').write_bytes(bytes(100_000))\n"
        "except OutputError as error:\n    print(error, '|', error.exit_code)\n"
    )

    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)

    assert "a file-size limit was hit | 4" in done.stdout
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_no_bundle_and_the_next_one_cleans_up(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ghostdeploy.bundle.staging import staging\n"
        "with staging(Path(sys.argv[1]), 'net') as folder:\n"
        "    (folder / 'manifest.json').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)

    assert done.returncode == -9
    assert [name for name in names(tmp_path) if not name.startswith(".")] == []
    with staging(tmp_path, "net") as folder:
        write(folder)
    assert names(tmp_path) == ["net"]


def test_a_workspace_is_gone_however_the_block_ends(tmp_path):
    with workspace(tmp_path, "log") as folder:
        write(folder)
    with pytest.raises(KeyboardInterrupt), workspace(tmp_path, "log") as folder:
        raise KeyboardInterrupt

    assert names(tmp_path) == []

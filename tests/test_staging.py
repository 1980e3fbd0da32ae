"""A bundle exists whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from ghostdeploy import placing
from ghostdeploy.errors import OutputError, UsageError
from ghostdeploy.staging import staging, workspace
from ghostdeploy.workspaces import MARKER, mark


def write(folder, text="new"):
    (folder / "manifest.json").write_text(text)


def read(folder):
    return (folder / "manifest.json").read_text()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail_inside(out, **options):
    with staging(out, "net", **options) as folder:
        write(folder)
        raise KeyError("x")


def dead(out, name, *, old=None):
    """Makes the workspace that a killed export of `name` leaves; `old` is the text of the bundle it moved away."""
    folder = out / f".{name}.tmp-12345-0a1b2c3d"
    (folder / "new" / name).mkdir(parents=True)
    (folder / "new" / name / "model.onnx").write_bytes(b"half")
    mark(folder)
    if old is not None:
        (folder / "old" / name).mkdir(parents=True)
        write(folder / "old" / name, old)
    return folder


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_workspace_of_another_user_is_left_alone(tmp_path):
    folder = dead(tmp_path, "other")
    os.chown(folder, 12345, -1)

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


@pytest.fixture(params=["one call", "no such call"])
def system(request, monkeypatch):
    """A system that can rename without replacing, and one that cannot."""
    if request.param == "no such call":
        monkeypatch.setattr(placing, "_exclusive_rename", lambda source, target: errno.ENOSYS)


INTRUDERS = {
    "an empty folder": lambda place: place.mkdir(),
    "a folder": lambda place: (place.mkdir(), (place / "thesis.tex").write_text("years of work")),
    "a file": lambda place: place.write_text("years of work"),
    "a link to nowhere": lambda place: place.symlink_to("nowhere"),
    "a link to a folder": lambda place: place.symlink_to("."),
    "a bundle": lambda place: (place.mkdir(), write(place, "theirs")),
}


def write_while(kind, out, **options):
    with staging(out, "net", **options) as folder:
        (folder / "labels.txt").write_text("new")
        INTRUDERS[kind](out / "net")


@pytest.mark.parametrize("kind", INTRUDERS)
def test_what_appears_at_the_place_meanwhile_is_not_replaced(kind, system, tmp_path):
    with pytest.raises(UsageError, match="exists already"):
        write_while(kind, tmp_path)

    assert not (tmp_path / "net" / "labels.txt").exists()
    assert names(tmp_path) == ["net"]


@pytest.mark.parametrize("kind", [kind for kind in INTRUDERS if kind != "a bundle"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_force_replaces_nothing_but_a_bundle(kind, when, system, tmp_path):
    if when == "before":
        INTRUDERS[kind](tmp_path / "net")
    with pytest.raises(UsageError, match="is not a bundle"):
        write_while(kind, tmp_path, force=True)

    assert names(tmp_path) == ["net"]
    assert not (tmp_path / "net" / "labels.txt").exists()


def test_force_keeps_what_the_user_put_into_the_bundle(existing):
    (existing / "net" / "notes.txt").write_text("years of work")

    with pytest.raises(UsageError, match=r"holds notes\.txt beside") as caught, staging(existing, "net", force=True):
        pytest.fail("the block must not run")

    assert "move that elsewhere" in caught.value.hint
    assert names(existing / "net") == ["manifest.json", "notes.txt"]


def test_force_does_not_take_another_programs_manifest_for_a_bundle(existing):
    write(existing / "net", '{"name": "a web app", "icons": []}')

    with pytest.raises(UsageError, match="is not a bundle"), staging(existing, "net", force=True):
        pytest.fail("the block must not run")


def test_force_replaces_a_bundle_that_appeared_meanwhile(system, tmp_path):
    with staging(tmp_path, "net", force=True) as folder:
        write(folder)
        (tmp_path / "net").mkdir()
        write(tmp_path / "net", "theirs")

    assert names(tmp_path) == ["net"]
    assert read(tmp_path / "net") == "new"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "input/output error"), KeyboardInterrupt()])
def test_the_old_bundle_comes_back_when_the_new_one_cannot_be_moved(error, existing, monkeypatch):
    from ghostdeploy import staging as module

    def fail(folder, final):
        raise error

    monkeypatch.setattr(module, "place_new", fail)
    with pytest.raises(type(error)), staging(existing, "net", force=True) as folder:
        write(folder)

    assert names(existing) == ["net"]
    assert read(existing / "net") == "old"


@pytest.mark.parametrize("force", [False, True])
def test_threads_of_one_process_can_write_one_name_at_a_time(force, tmp_path):
    together, said = threading.Barrier(4), []

    def export(text):
        try:
            with staging(tmp_path, "net", force=force) as folder:
                for name in ("manifest.json", "labels.txt"):
                    (folder / name).write_text(text)
                together.wait(60)
            said.append(text)
        except UsageError as error:
            said.append(error.message)

    threads = [threading.Thread(target=export, args=(f"text {number}",)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    won = [text for text in said if text.startswith("text")]
    assert len(won) == (4 if force else 1), said
    assert all("exists already" in text for text in said if text not in won)
    assert names(tmp_path) == ["net"]
    assert (tmp_path / "net" / "labels.txt").read_text() == read(tmp_path / "net")
    assert read(tmp_path / "net") in won


def test_processes_can_write_one_name_at_a_time(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom ghostdeploy.staging import staging\n"
        "with staging(Path(sys.argv[1]), 'net') as folder:\n"
        "    (folder / 'manifest.json').write_text(sys.argv[2])\n    print(flush=True)\n    sys.stdin.readline()\n"
    )
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, text], stdin=pipe, stdout=pipe, stderr=pipe)
        for text in ("one", "two")
    ]
    for one in running:
        one.stdout.readline()  # both are inside
    ends = [(one.communicate(b"\n")[1].decode(), one.returncode) for one in running]

    assert [code for _, code in ends] == [0, 1]
    assert "exists already" in ends[1][0]
    assert read(tmp_path / "net") == "one"
    assert names(tmp_path) == ["net"]


@pytest.mark.parametrize("name", ["", ".", "..", "../net", "a/b"])
def test_a_name_that_leaves_the_folder_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match="plain folder name"), workspace(tmp_path, name):
        pytest.fail("the block must not run")


HEAD = b"ghostdeploy: a log\n"


def test_a_file_of_ours_is_written_again_and_one_of_others_stays(tmp_path):
    log = tmp_path / "net-onnx.log"
    assert placing.write_beside(log, b"first, and long", HEAD) == log
    assert placing.write_beside(log, b"second", HEAD) == log
    assert log.read_bytes() == HEAD + b"second"

    log.write_bytes(b"years of work")
    assert placing.write_beside(log, b"third", HEAD) == tmp_path / "net-onnx-2.log"
    assert log.read_bytes() == b"years of work"


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_is_never_written_through(link, tmp_path):
    placing.write_own(tmp_path / "kept", b"years of work", HEAD)
    link(tmp_path / "kept", tmp_path / "net.log")

    assert not placing.write_own(tmp_path / "net.log", b"new", HEAD)
    assert (tmp_path / "kept").read_bytes() == HEAD + b"years of work"


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
        "from ghostdeploy.errors import OutputError\nfrom ghostdeploy.staging import staging\n"
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
        "import os, signal, sys\nfrom pathlib import Path\nfrom ghostdeploy.staging import staging\n"
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

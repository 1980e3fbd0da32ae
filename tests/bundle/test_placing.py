"""Nothing foreign is replaced, whatever appears at the place of a bundle or a log, and whoever else writes there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from ghostdeploy.bundle import placing
from ghostdeploy.bundle.staging import staging, workspace
from ghostdeploy.errors import UsageError
from tests.staged import names, read, write


@pytest.fixture
def existing(tmp_path):
    (tmp_path / "net").mkdir()
    write(tmp_path / "net", "old")
    return tmp_path


@pytest.fixture(params=["one call", "no such call"])
def system(request, monkeypatch):
    """A system that can rename without replacing, and one that cannot."""
    if request.param == "no such call":
        monkeypatch.setattr(placing, "_call", lambda *_: errno.ENOSYS)


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


def test_force_replaces_a_bundle_that_appeared_meanwhile(system, tmp_path):
    with staging(tmp_path, "net", force=True) as folder:
        write(folder)
        (tmp_path / "net").mkdir()
        write(tmp_path / "net", "theirs")

    assert names(tmp_path) == ["net"]
    assert read(tmp_path / "net") == "new"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["place_new", "exchange"])
def test_the_old_bundle_comes_back_when_the_new_one_cannot_be_moved(error, step, existing, monkeypatch):
    from ghostdeploy.bundle import staging as module

    def fail(folder, final):
        raise error

    monkeypatch.setattr(placing, "_call", lambda *_: errno.ENOSYS)
    monkeypatch.setattr(module, step, fail)
    with pytest.raises(type(error)), staging(existing, "net", force=True) as folder:
        write(folder)

    assert names(existing) == ["net"]
    assert read(existing / "net") == "old"


@pytest.fixture
def exchanging(tmp_path):
    """Skips where two folders cannot change names."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    able = placing.exchange(tmp_path / "one", tmp_path / "other")
    (tmp_path / "one").rmdir()
    (tmp_path / "other").rmdir()
    if not able:
        pytest.skip("folders cannot change names here")


def test_a_reader_finds_a_bundle_at_every_moment_while_it_is_replaced(exchanging, existing):
    place, over, seen, failed = existing / "net" / "manifest.json", threading.Event(), set(), []

    def look():
        while not over.is_set():
            try:
                with place.open("rb") as stream:
                    seen.add(stream.read())
            except OSError as error:
                failed.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(200):
            with staging(existing, "net", force=True) as folder:
                write(folder, f"number {number}")
    finally:
        over.set()
        reader.join()

    assert failed == []
    assert len(seen) > 1
    assert b"" not in seen
    assert names(existing) == ["net"]


@pytest.mark.parametrize("kind", [kind for kind in INTRUDERS if kind != "a bundle"])
def test_what_appears_at_the_moment_of_the_exchange_goes_back(kind, exchanging, existing, monkeypatch):
    from ghostdeploy.bundle import staging as module

    def late(one, other):
        monkeypatch.setattr(module, "exchange", placing.exchange)
        (existing / "net").rename(existing / "moved away")
        INTRUDERS[kind](existing / "net")
        return placing.exchange(one, other)

    monkeypatch.setattr(module, "exchange", late)
    with pytest.raises(UsageError, match="is not a bundle"), staging(existing, "net", force=True) as folder:
        write(folder)

    assert names(existing) == ["moved away", "net"]
    assert not (existing / "net" / "manifest.json").exists() or kind == "a link to a folder"
    assert kind != "a folder" or names(existing / "net") == ["thesis.tex"]


@pytest.mark.parametrize("force", [False, True])
def test_threads_of_one_process_can_write_one_name_at_a_time(force, tmp_path):
    together, said = threading.Barrier(8), []

    def export(text):
        try:
            with staging(tmp_path, "net", force=force) as folder:
                write(folder, text)
                (folder / "labels.txt").write_text(text)
                together.wait(60)
            said.append(text)
        except Exception as error:
            said.append(str(error))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # every moment between two steps is hit
    try:
        threads = [threading.Thread(target=export, args=(f"text {number}",)) for number in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    finally:
        sys.setswitchinterval(before)

    won = [text for text in said if text.startswith("text")]
    assert len(won) == (8 if force else 1), said
    assert all("exists already" in text for text in said if text not in won)
    assert names(tmp_path) == ["net"]
    assert (tmp_path / "net" / "labels.txt").read_text() == read(tmp_path / "net")
    assert read(tmp_path / "net") in won


def test_processes_can_write_one_name_at_a_time(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from ghostdeploy.bundle.staging import staging\nfrom tests.staged import write\n"
        "with staging(Path(sys.argv[1]), 'net') as folder:\n"
        "    write(folder, sys.argv[2])\n    print(flush=True)\n    sys.stdin.readline()\n"
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

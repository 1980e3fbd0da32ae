"""The folder of an emulator is whole or absent, whoever makes, kills or damages it."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from ghostdeploy.errors import BadInput, MissingDependency, OutputError
from ghostdeploy.remote.emulator import place


def fill(folder):
    (folder / "site").mkdir()
    (folder / "site" / "module.py").write_text("value = 1\n")


def test_a_folder_that_is_there_is_not_made_again(tmp_path):
    place.obtain(tmp_path / "k", fill)
    place.obtain(tmp_path / "k", lambda _: pytest.fail("made twice"))

    assert (tmp_path / "k" / "site" / "module.py").read_text() == "value = 1\n"


def test_what_fails_leaves_nothing(tmp_path):
    def fail(folder):
        fill(folder)
        raise MissingDependency("no network")

    with pytest.raises(MissingDependency):
        place.obtain(tmp_path / "k", fail)

    assert [path.name for path in tmp_path.iterdir()] == [".k.lock"]


def test_two_at_once_make_it_once(tmp_path):
    made = []

    def slowly(folder):
        made.append(folder)
        time.sleep(0.2)
        fill(folder)

    threads = [threading.Thread(target=place.obtain, args=(tmp_path / "k", slowly)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 1
    assert place.is_whole(tmp_path / "k")


def test_what_a_killed_process_left_goes_with_the_next(tmp_path):
    (tmp_path / ".k-dead" / "new").mkdir(parents=True)
    (tmp_path / ".other-dead").mkdir()
    place.obtain(tmp_path / "k", fill)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".k.lock", ".other-dead", "k"]


@pytest.mark.parametrize("damage", ["cut", "gone", "more", "seal"])
def test_a_damaged_folder_is_made_anew(damage, tmp_path):
    place.obtain(tmp_path / "k", fill)
    module = tmp_path / "k" / "site" / "module.py"
    if damage == "cut":
        module.write_text("")
    elif damage == "gone":
        module.unlink()
    elif damage == "more":
        module.with_name("other.py").touch()
    else:
        (tmp_path / "k" / "seal").write_bytes(b"\xff")

    assert not place.is_whole(tmp_path / "k")
    place.obtain(tmp_path / "k", fill)
    assert place.is_whole(tmp_path / "k")
    assert [path.name for path in (tmp_path / "k" / "site").iterdir()] == ["module.py"]


def test_compiled_modules_are_no_damage(tmp_path):
    place.obtain(tmp_path / "k", fill)
    (tmp_path / "k" / "site" / "__pycache__").mkdir()
    (tmp_path / "k" / "site" / "__pycache__" / "module.pyc").touch()

    assert place.is_whole(tmp_path / "k")


def test_a_folder_that_others_may_write_is_refused(tmp_path, recwarn):
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o777)

    with pytest.raises(BadInput, match=r"others may write .*/all, so its programs are not run"):
        place.obtain(tmp_path / "all" / "k", fill)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(place.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))

    with pytest.raises(OutputError, match="does not fit on the disk of"):
        place.obtain(tmp_path / "k", fill)


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="the emulator cannot be written to"):
        place.obtain(tmp_path / "file" / "k", fill)

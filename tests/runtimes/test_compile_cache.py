"""Compiled models kept between processes: found again by content, never trusted when damaged."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.errors import BundleError, OutputError
from ghostdeploy.runtimes.openvino.compile_cache import CompileCache
from tests.bundles import Tiny, make_bundle

BATCH = Tiny().example(3)["input"]


@pytest.fixture
def path(tiny_bundle):
    return tiny_bundle("openvino")


def state(path, folder, **options):
    with gd.load(path, threads=1, cache=folder, **options) as runtime:
        return runtime.info()["cache"]


def entries(folder):
    return sorted(folder.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_second_load_finds_what_the_first_kept_and_computes_the_same_bits(tiny_bundle, tmp_path, precision):
    path, folder = tiny_bundle("openvino", precision, batch=None), tmp_path / "deep" / "cache"
    found = []
    for _ in range(2):
        with gd.load(path, threads=2, cache=folder) as runtime:
            found.append((runtime.info(), runtime(BATCH), runtime.submit(BATCH).result(60)))

    with gd.load(path, threads=2) as runtime:
        assert runtime.info()["cache"] == "off"
        assert all(np.array_equal(array, runtime(BATCH)) for _, *arrays in found for array in arrays)
    assert [info.pop("cache") for info, *_ in found] == ["stored", "hit"]
    assert found[0][0] == found[1][0]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(entries(folder)) == 1


def test_other_settings_and_other_contents_have_entries_of_their_own(path, tmp_path):
    other = make_bundle(tmp_path, "openvino", tiny=Tiny(size=24))
    folder = tmp_path / "cache"

    stored = [
        state(path, folder),
        state(path, folder, profile="throughput"),
        state(other, folder),
        state(path, folder),
        state(other, folder),
    ]

    assert stored == ["stored", "stored", "stored", "hit", "hit"]
    assert len(entries(folder)) == 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other bytes"])
def test_a_damaged_entry_is_compiled_anew(path, tmp_path, damage):
    state(path, tmp_path)
    (entry,) = entries(tmp_path)
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes({"flipped": data, "cut": data[:-9], "empty": b"", "other bytes": b"\0" * 99}[damage])

    assert [state(path, tmp_path), state(path, tmp_path)] == ["stored", "hit"]


def test_an_entry_that_the_engine_does_not_take_is_compiled_anew(path, tmp_path, monkeypatch):
    original = CompileCache.write
    monkeypatch.setattr(CompileCache, "write", lambda self, blob: original(self, b"of another version"))
    assert state(path, tmp_path) == "stored"
    monkeypatch.undo()

    assert [state(path, tmp_path), state(path, tmp_path)] == ["stored", "hit"]


def test_hashes_are_compared_where_a_cache_is_used(path, tmp_path):
    copy = shutil.copytree(path, tmp_path / "copy")
    data = bytearray((copy / "model.bin").read_bytes())
    data[-1] ^= 1
    (copy / "model.bin").write_bytes(data)
    state(path, tmp_path / "cache")

    with pytest.raises(BundleError, match=r"model\.bin"):
        gd.load(copy, threads=1, verify=False, cache=tmp_path / "cache")


def test_processes_that_start_together_leave_one_whole_entry(path, tmp_path):
    program = "import sys, ghostdeploy as gd; print(gd.load(sys.argv[1], threads=1, cache=sys.argv[2]).info()['cache'])"

    def start(_):
        command = [sys.executable, "-c", program, str(path), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(start, range(3)))

    assert {one.stdout.strip() for one in done} <= {"stored", "hit"}, [one.stderr for one in done]
    assert len(entries(tmp_path)) == 1
    assert state(path, tmp_path) == "hit"


def test_a_cache_that_is_a_file_is_one_sentence(path, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match=r"cache folder .*file cannot be written: ") as caught:
        gd.load(path, threads=1, cache=tmp_path / "file")

    assert caught.value.exit_code == 4
    assert "cache folder that this user may write to" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root may become somebody else")
def test_a_folder_of_somebody_else_is_one_sentence(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    program = (
        "import os, sys, pathlib\n"
        "from ghostdeploy.errors import OutputError\n"
        "from ghostdeploy.runtimes.openvino.compile_cache import CompileCache\n"
        "os.setuid(65534)\n"
        "try:\n    CompileCache(pathlib.Path(sys.argv[1]), ['a']).write(b'x')\n"
        "except OutputError as error:\n    print(error.message)\n"
    )

    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == f"cache folder {folder} cannot be written: {os.strerror(errno.EACCES)}", done.stderr
    assert entries(folder) == []


def test_what_a_killed_writer_left_goes_and_what_may_be_anybodys_stays(tmp_path):
    old = (".ghostdeploy-0abc_xyz.part", "tmpq3x0v1ab.part", "film.part", ".ghostdeploy-.part")
    for name in (*old, ".ghostdeploy-0abc_new.part"):
        (tmp_path / name).write_bytes(b"half")
    for name in old:
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".ghostdeploy-0abcdlnk.part").symlink_to("film.part")
    os.utime(tmp_path / ".ghostdeploy-0abcdlnk.part", (0, 0), follow_symlinks=False)

    assert CompileCache(tmp_path, ["a"]).write(b"x")

    kept = {*old[1:], ".ghostdeploy-0abc_new.part", ".ghostdeploy-0abcdlnk.part"}
    assert {path.name for path in entries(tmp_path) if path.suffix == ".part"} == kept
    assert CompileCache(tmp_path, ["a"]).read() == b"x"


def test_a_full_disk_leaves_nothing_behind_and_is_one_sentence(tmp_path, monkeypatch):
    def replace(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", replace)

    with pytest.raises(OutputError, match="No space left"):
        CompileCache(tmp_path, ["a"]).write(b"x")

    assert entries(tmp_path) == []


def test_an_engine_without_a_cache_says_so_and_writes_nothing(tiny_bundle, tmp_path):
    assert state(tiny_bundle("onnx"), tmp_path / "cache") == "none"
    assert not (tmp_path / "cache").exists()


def test_a_kept_entry_needs_no_writable_folder(path, tmp_path):
    state(path, tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert state(path, tmp_path) == "hit"
    finally:
        tmp_path.chmod(0o755)

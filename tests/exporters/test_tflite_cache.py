"""Conversions are kept by content: found again, never wrong, and never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from ghostdeploy.convert.cache import Cache

CONVERSIONS = """
import json, os
from pathlib import Path
import torch
from torch import nn
from ghostdeploy.convert.cache import Cache
from ghostdeploy.exporters.tflite.exporter import converted

def program(seed):
    torch.manual_seed(seed)
    return torch.export.export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (torch.zeros(1, 3, 8, 8),))

found = {"first": converted(program(0), channels_last=True)[4:8].decode()}
folder = Path(os.environ["GHOSTDEPLOY_CACHE"])
[file] = folder.iterdir()
Cache.of_user().put(file.stem, b"kept")
found["again"] = converted(program(0), channels_last=True)[:4].decode()
found["other layout"] = converted(program(0), channels_last=False)[4:8].decode()
found["other weights"] = converted(program(1), channels_last=True)[4:8].decode()
found["files"] = len(list(folder.iterdir()))
file.write_bytes(file.read_bytes()[:-1] + b"x")
found["damaged"] = converted(program(0), channels_last=True)[4:8].decode()
os.environ["GHOSTDEPLOY_CACHE"] = str(file / "below a file")
found["unwritable"] = converted(program(0), channels_last=True)[4:8].decode()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_second_conversion_of_the_same_program_comes_from_the_cache(tmp_path):
    environment = os.environ | {"GHOSTDEPLOY_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", CONVERSIONS], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "first": "TFL3",
        "again": "kept",
        "other layout": "TFL3",
        "other weights": "TFL3",
        "files": 3,
        "damaged": "TFL3",
        "unwritable": "TFL3",
    }


def test_what_was_put_is_found_and_nothing_else(tmp_path):
    cache = Cache(tmp_path / "deep" / "cache")
    cache.put("a", b"result")

    assert cache.get("a") == b"result"
    assert cache.get("b") is None


@pytest.mark.parametrize("damage", [b"", b"short", lambda data: data[:-1], lambda data: data[:-1] + b"x"])
def test_a_damaged_file_is_no_result(damage, tmp_path):
    cache = Cache(tmp_path)
    cache.put("a", b"result")
    [file] = tmp_path.iterdir()
    file.write_bytes(damage if isinstance(damage, bytes) else damage(file.read_bytes()))

    assert cache.get("a") is None
    cache.put("a", b"result")
    assert cache.get("a") == b"result"


def test_a_folder_that_cannot_be_made_does_no_harm(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")

    cache.put("a", b"result")

    assert cache.get("a") is None


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path):
    cache = Cache(tmp_path, limit=3 * (32 + 100))
    keys = ["a" * 64, "b" * 64, f"tflite-{'c' * 64}", "d" * 64]
    for age, key in enumerate(keys[:3]):
        cache.put(key, bytes(100))
        os.utime(tmp_path / f"{key}.result", (age, age))
    assert cache.get(keys[0]) is not None  # used just now

    cache.put(keys[3], bytes(100))

    assert [key[-1] for key in keys if cache.get(key)] == ["a", "c", "d"]


def test_an_interrupted_write_leaves_no_half_result(tmp_path):
    cache = Cache(tmp_path)
    (tmp_path / "a.result").mkdir()  # the rename fails

    cache.put("a", b"result")

    assert [path.name for path in tmp_path.iterdir()] == ["a.result"]


def test_the_environment_names_the_folder_or_switches_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", str(tmp_path / "named"))
    Cache.of_user().put("a", b"1")
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", "")
    Cache.of_user().put("b", b"2")
    monkeypatch.delenv("GHOSTDEPLOY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    Cache.of_user().put("c", b"3")

    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.result")}
    assert found == {"named/a.result", "xdg/ghostdeploy/c.result"}


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ghostdeploy.convert.cache import Cache\n"
        "def pieces():\n    yield b'half'\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Cache(Path(sys.argv[1])).write('a' * 64, pieces())\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    old, new = tmp_path.iterdir()
    os.utime(old, (time.time() - 7200,) * 2)
    Cache(tmp_path).put("b" * 64, b"1")

    assert {path.name for path in tmp_path.iterdir()} == {f"{'b' * 64}.result", new.name}


def test_files_of_the_user_in_the_folder_of_a_cache_stay_whatever_their_name(tmp_path):
    hashed = f"{'c' * 64}.result"
    foreign = (
        "ubuntu.iso.part",
        "tmp0a1b2c3d.part",
        "exam.result",
        f"{'c' * 63}.result",
        f"x{hashed}",
        f"{hashed}.old",
    )
    for name in (*foreign, ".ghostdeploy-.part", ".ghostdeploy-thesis-of-years.part", "elsewhere"):
        (tmp_path / name).write_bytes(b"years of work" * 100)
    (tmp_path / hashed).symlink_to("elsewhere")
    (tmp_path / f"{'d' * 64}.result").mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    before = sorted(tmp_path.iterdir())

    cache = Cache(tmp_path, limit=1000)
    for key in "ab":
        cache.put(key * 64, bytes(800))

    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / f"{'b' * 64}.result"])  # ours obey the limit

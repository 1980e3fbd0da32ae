"""Caches hold what this user wrote: whatever others own or may write, or is garbage, counts as absent."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
from dataclasses import replace
from functools import partial

import msgspec
import pytest

import ghostdeploy as gd
from ghostdeploy import cached
from ghostdeploy.bundle.manifest import PrecisionAchieved
from ghostdeploy.convert.base import ExportResult, Written
from ghostdeploy.convert.cache import LIMIT, Cache, pack, unpack
from ghostdeploy.runtimes.openvino.compile_cache import CompileCache
from tests.runs import run_in

PRECISION = PrecisionAchieved(how="read", int8_layers=1, float_layers=2)
DONE = ExportResult(status="done", written=Written(precision=PRECISION))


class Conversions:
    """One entry of the cache of conversions."""

    def __init__(self, folder):
        self.path = folder / "key.result"
        self._cache = Cache(folder)

    def write(self):
        self._cache.put("key", b"result")

    def read(self):
        return self._cache.get("key")


class Compiled:
    """One entry of the cache of compiled models."""

    def __init__(self, folder):
        self._folder = folder
        self._cache = CompileCache(folder, ["key"])

    @property
    def path(self):
        return next(self._folder.glob("*.blob"))

    def write(self):
        self._cache.write(b"result")

    def read(self):
        return self._cache.read()


@pytest.fixture(params=[Conversions, Compiled])
def entry(request, tmp_path):
    """A written entry in a folder of its own."""
    cached.warn_of_cache.cache_clear()
    found = request.param(tmp_path / "cache")
    found.write()
    assert found.read() == b"result"
    return found


def test_folders_are_made_for_their_owner_alone(entry):
    assert entry.path.parent.stat().st_mode & 0o777 == 0o700
    assert entry.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize("mode", [0o720, 0o702], ids=["group", "world"])
def test_what_others_may_write_is_ignored_with_one_warning(entry, what, mode, caplog):
    path = entry.path.parent if what == "folder" else entry.path
    path.chmod(mode)

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        assert entry.read() is None
        assert entry.read() is None

    assert [record.getMessage() for record in caplog.records] == [
        f"cache {path} is writable by other users, ignored: chmod go-w {path}"
    ]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_belongs_to_another_user_is_ignored_with_one_warning(entry, what, caplog, monkeypatch):
    path = entry.path.parent if what == "folder" else entry.path
    real, other = os.fstat if what == "file" else os.stat, os.geteuid() + 1

    def foreign(*arguments, **options):
        state = real(*arguments, **options)
        return os.stat_result((*state[:4], other, *state[5:]))

    if what == "file":
        monkeypatch.setattr(cached.os, "fstat", foreign)
    else:
        monkeypatch.setattr(type(path), "stat", lambda self, **_: foreign(str(self)))
    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        assert entry.read() is None
        assert entry.read() is None

    assert [record.getMessage() for record in caplog.records] == [
        f"cache {path} belongs to another user (id {other}), ignored: use a folder of your own"
    ]


def test_nothing_is_kept_where_others_may_write(entry, caplog):
    entry.path.parent.chmod(0o770)
    entry.path.unlink()
    entry.write()

    assert list(entry.path.parent.glob("*") if isinstance(entry, Conversions) else entry._folder.iterdir()) == []
    assert len(caplog.records) == 1


def test_a_cache_of_root_that_only_root_may_write_is_trusted(entry, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of root")
    monkeypatch.setattr(cached.os, "geteuid", lambda: 1000)

    assert entry.read() == b"result"


@pytest.mark.parametrize("kind", ["link", "FIFO", "folder", "empty", "short", "cut"])
def test_an_entry_that_is_none_is_absent(entry, kind, tmp_path):
    path, data = entry.path, entry.path.read_bytes()
    path.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "short": data[:20], "cut": data[:-1]}[kind])

    found = Conversions(path.parent) if isinstance(entry, Conversions) else entry
    assert found.read() is None


def test_a_giant_entry_is_not_even_read(entry):
    os.truncate(entry.path, 100 * LIMIT)  # a hole: it takes no space

    assert entry.read() is None


def test_an_untrusted_cache_of_compiled_models_is_said_by_info(tiny_bundle, tmp_path, caplog):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)

    for _ in range(2):
        with gd.load(tiny_bundle("openvino"), cache=folder) as model:
            assert model.info()["cache"] == "untrusted"

    assert list(folder.iterdir()) == []
    assert len(caplog.records) == 1


def stream_of(record, content=b"data"):
    data = record if isinstance(record, bytes) else msgspec.json.encode(record)
    return len(data).to_bytes(8, "big") + data + content


def record(*, names=("model",), claimed=(), sizes=None, status="done"):
    files_of = [{"path": name, "bytes": size} for name, size in zip(names, sizes or (4,) * len(names), strict=True)]
    written = Written(precision=PRECISION, files=claimed)
    return {"result": ExportResult(status=status, written=written), "files": files_of}


GARBAGE = {
    "nothing": b"",
    "a length alone": b"\0" * 8,
    "a length beyond the stream": (2**40).to_bytes(8, "big") + b"{}",
    "a length beyond everything": b"\xff" * 8 + b"{}",
    "no JSON": stream_of(b"data"),
    "wrong types": stream_of(b'{"result": 1, "files": {}}'),
    "nested without end": stream_of(b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b', "files": []}'),
    "huge numbers": stream_of(record(sizes=(2**62,))),
    "a number of many digits": stream_of(
        msgspec.json.encode(record(sizes=(12345678,))).replace(b"12345678", b"9" * 4000)
    ),
    "a negative size": stream_of(record(names=("a", "b"), sizes=(-4, 8))),
    "a file cut off": stream_of(record(sizes=(5,))),
    "more than the files": stream_of(record(sizes=(3,))),
    "one file twice": stream_of(record(names=("model", "model")), b"datadata"),
    "a file in a file": stream_of(record(names=("model", "model/below")), b"datadata"),
    "a file outside": stream_of(record(names=("../model",))),
    "an absolute file": stream_of(record(names=("/tmp/model",))),
    "a claimed file outside": stream_of(record(claimed=("../../secret",))),
    "an absolute claimed file": stream_of(record(claimed=("/etc/hostname",))),
    "a claimed file that is not there": stream_of(record(claimed=("engines/a",))),
    "no finished conversion": stream_of(record(status="failed")),
    "nothing written": stream_of({**record(), "result": ExportResult(status="done")}),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_an_archive_of_garbage_is_refused_and_writes_nothing_outside(kind, tmp_path):
    (tmp_path / "out").mkdir()

    with pytest.raises((ValueError, FileExistsError, NotADirectoryError)):
        unpack(io.BytesIO(GARBAGE[kind]), tmp_path / "out")

    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_conversion_with_garbage_in_its_cache_is_made_anew(kind, tmp_path, monkeypatch):
    from ghostdeploy.deploy.export import conversions

    folder = tmp_path / "out"
    folder.mkdir()
    run = replace(run_in(tmp_path), cache=Cache(tmp_path / "cache"))
    run.cache.put("key", GARBAGE[kind])

    assert conversions.Conversions(run)._kept("key", run.steps[0], _job(folder)) is None
    assert list(folder.iterdir()) == []


def test_a_conversion_without_its_payload_is_made_anew(tmp_path):
    from ghostdeploy.deploy.export import conversions

    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    run = replace(run_in(tmp_path), cache=Cache(tmp_path / "cache"))
    run.cache.write("key", pack(tmp_path / "in", DONE))
    kept = partial(conversions.Conversions(run)._kept, "key", run.steps[0], _job(tmp_path / "out"))
    assert kept() is None

    (tmp_path / "in" / "model.onnx").write_bytes(b"graph")
    run.cache.write("key", pack(tmp_path / "in", DONE))
    assert kept() == DONE
    shutil.rmtree(tmp_path / "out")


def _job(folder):
    from ghostdeploy.convert.base import ExportJob

    return ExportJob(
        source="", folder=str(folder), result="", precision="fp32", input_names=(), output_names=(), dynamic_batch=False
    )


@pytest.mark.parametrize("below", [".", "folder"])
def test_a_cache_that_was_asked_for_and_cannot_be_written_is_told_once(below, tmp_path, caplog, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", str(tmp_path / "file" / below))

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        for _ in range(2):
            cache = Cache.of_user()
            cache.put("0" * 64, b"result")
            assert cache.get("0" * 64) is None

    why = os.strerror(errno.EEXIST if below == "." else errno.ENOTDIR)
    cure = "set GHOSTDEPLOY_CACHE to a folder of your own, or to '' for no cache"
    assert [record.getMessage() for record in caplog.records] == [
        f"cache {tmp_path / 'file' / below} cannot be written ({why}), ignored: {cure}"
    ]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_cache_that_nobody_asked_for_is_left_out_in_silence(tmp_path, caplog):
    (tmp_path / "file").write_text("mine")

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        Cache(tmp_path / "file").put("0" * 64, b"result")

    assert caplog.records == []

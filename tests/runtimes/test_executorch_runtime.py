"""ExecuTorch behind the common interface: memory is read rightly and kept, damage is found before the engine reads."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import shutil
import sys

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.errors import BundleError, MissingDependency
from ghostdeploy.runtimes.executorch import contents, program
from ghostdeploy.runtimes.executorch.flatbuffer import Table
from tests.bundles import Tiny
from tests.conftest import require
from tests.signing import sign_again


@pytest.fixture(autouse=True)
def installed():
    require("executorch")


@pytest.fixture(params=["libraries", "extension"])
def binding(request, monkeypatch):
    """Both ways to ExecuTorch; the extension is that of other releases and systems."""
    from ghostdeploy.runtimes.executorch import engine, library

    if request.param == "libraries":
        if sys.platform != "linux":
            pytest.skip("the libraries are taken on Linux")
        assert isinstance(engine._binding, library.Library)
    else:
        from ghostdeploy.runtimes.executorch.extension import Extension

        monkeypatch.setattr(engine, "_binding", Extension())


@pytest.mark.usefixtures("binding")
def test_the_order_in_memory_does_not_matter(tiny_bundle):
    batch = Tiny().example(2)["input"]
    turned = np.asfortranarray(batch)
    locked = batch.copy()
    locked.flags.writeable = False

    with gd.load(tiny_bundle("executorch"), threads=1) as runtime:
        wanted = runtime(batch)
        assert np.array_equal(runtime(turned), wanted)
        assert np.array_equal(runtime(locked), wanted)


@pytest.mark.usefixtures("binding")
def test_the_program_is_kept_as_long_as_it_is_read(tiny_bundle):
    """ExecuTorch reads the bytes in place: with the memory freed it ran into the next owner's data."""
    batch = Tiny().example(1)["input"]
    with gd.load(tiny_bundle("executorch"), threads=1) as runtime:
        wanted = runtime(batch)
        gc.collect()
        others = [bytes(60_000) for _ in range(200)]
        assert np.array_equal(runtime(batch), wanted)
        assert len(others) == 200


@pytest.mark.usefixtures("binding")
def test_an_open_network_keeps_its_threads_when_another_asks_for_more(tiny_bundle, caplog):
    path = tiny_bundle("executorch")
    batch = Tiny().example(1)["input"]
    with gd.load(path, threads=1) as first:
        wanted = first(batch)
        with gd.load(path, threads=2) as second:
            assert second.info()["threads"] == first.info()["threads"] == 1
            assert "one thread pool per process: 1 threads, not 2" in caplog.text
            assert np.array_equal(second(batch), wanted)
        assert np.array_equal(first(batch), wanted)

    with gd.load(path, threads=2) as alone:
        assert alone.info()["threads"] == 2


DAMAGE = {
    "cut": lambda data: data[:-1],
    "another format": lambda data: data[:4] + b"\xff" * 4 + data[8:],
    "a header that says more": lambda data: data[:32] + (1 << 40).to_bytes(8, "little") + data[40:],
    "a table outside": lambda data: b"\xff\xff\xff\x7f" + data[4:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_before_the_engine_reads_it(tiny_bundle, tmp_path, kind):
    copy = shutil.copytree(tiny_bundle("executorch"), tmp_path / "copy")
    payload = copy / "model.pte"
    payload.write_bytes(DAMAGE[kind](payload.read_bytes()))
    sign_again(copy)

    with pytest.raises(BundleError, match="executorch refuses"):
        gd.load(copy, threads=1)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_libraries_and_extension_give_the_same_bytes(tiny_bundle, precision):
    from ghostdeploy.runtimes.executorch.engine import _binding
    from ghostdeploy.runtimes.executorch.extension import Extension

    data = (tiny_bundle("executorch", precision) / "model.pte").read_bytes()
    mine, theirs = _binding.load(data, program.METHOD), Extension().load(data, program.METHOD)
    batch = Tiny().example(1)["input"]

    assert (mine.inputs, mine.outputs) == (theirs.inputs, theirs.outputs)
    for _ in range(2):
        assert np.array_equal(mine.run([batch])[0], theirs.run([batch])[0])


def test_results_are_copies(tiny_bundle):
    from ghostdeploy.runtimes.executorch.engine import _binding

    method = _binding.load((tiny_bundle("executorch") / "model.pte").read_bytes(), program.METHOD)
    first, second = np.split(Tiny().example(2)["input"], 2)
    (before,) = method.run([first])
    kept = before.copy()
    (after,) = method.run([second])
    del method
    gc.collect()

    assert np.array_equal(before, kept)
    assert not np.array_equal(before, after)


def test_an_array_that_is_not_as_declared_is_refused_before_it_is_read(tiny_bundle):
    from ghostdeploy.runtimes.executorch.engine import _binding

    method = _binding.load((tiny_bundle("executorch") / "model.pte").read_bytes(), program.METHOD)
    batch = Tiny().example(1)["input"]
    for other in (batch.astype(np.float64), batch[..., 1:], np.asfortranarray(batch)):
        with pytest.raises(ValueError, match="expected a contiguous array"):
            method.run([other])


def test_a_delegate_that_is_not_there_is_a_sentence(tiny_bundle):
    from ghostdeploy.runtimes.executorch.engine import _binding

    data = (tiny_bundle("executorch") / "model.pte").read_bytes()
    other = data.replace(b"XnnpackBackend", b"MissingBackend")

    with pytest.raises(RuntimeError, match=r"ExecuTorch cannot load forward: not found \(0x20\)"):
        _binding.load(other, program.METHOD)


def test_other_releases_systems_and_layouts_are_left_to_the_extension(monkeypatch, tmp_path):
    from ghostdeploy.runtimes.executorch import library

    with pytest.raises(ImportError, match="not as expected"):
        library.Library(tmp_path)
    with monkeypatch.context() as other:
        other.setattr(library, "version", lambda _: "1.6.0")
        assert library.open_library() is None
    with monkeypatch.context() as other:
        other.setattr(sys, "platform", "darwin")
        assert library.open_library() is None
    monkeypatch.setattr(library, "Tensor", turned(library.Tensor))
    assert library.open_library() is None


def turned(tensor):
    """Returns a tensor with two fields in another order."""
    fields = list(tensor._fields_)
    fields[4:6] = reversed(fields[4:6])
    return type("Tensor", (ctypes.Structure,), {"_fields_": fields})


def test_without_torch_and_a_known_release_one_sentence_says_what_to_install(monkeypatch):
    from ghostdeploy.runtimes.executorch import engine

    monkeypatch.setattr(engine, "open_library", lambda: None)
    monkeypatch.setattr(engine, "find_spec", lambda _: None)

    with pytest.raises(MissingDependency, match=r"ExecuTorch .* needs torch, not installed here"):
        engine._open_binding()


def test_damage_anywhere_is_an_error_of_values_or_none(tiny_bundle):
    data = (tiny_bundle("executorch") / "model.pte").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        place, size = int(rng.integers(0, len(data))), int(rng.integers(1, 40))
        with contextlib.suppress(ValueError):
            contents.read(data[:place] + rng.bytes(size) + data[place + size :])


def test_absent_fields_have_their_defaults():
    # A table without fields: root offset 8, vtable of 4 bytes at 4.
    table = Table.root(b"\x08\0\0\0" + b"\x04\0\x04\0" + b"\x04\0\0\0")

    assert table.number(0) == 0
    assert table.number(3, "<h", 7) == 7
    assert table.table(0) is None
    assert table.text(1) == ""
    assert table.tables(2) == table.numbers(2) == []
    assert table.bytes(2) == b""

"""Compiled networks: which library runs, and what is refused."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy import machine
from ghostdeploy.errors import BundleError, UnsupportedHardware
from ghostdeploy.runtimes.native import program
from tests.bundles import Tiny
from tests.conftest import require

AVX2 = frozenset(program.LEVELS["x86-64"]["x86-64-v3"])


@pytest.fixture(autouse=True, scope="module")
def compiler():
    require("native")


def test_two_networks_at_once_are_two_networks(tiny_bundle):
    plain, pixels = tiny_bundle("native"), tiny_bundle("native", layout="nhwc", dtype="uint8")
    floats, bytes_in = Tiny().example(2), Tiny(layout="nhwc", dtype="uint8").example(2)
    with gd.load(plain) as first:
        alone = first.infer(floats)["logits"]
    with gd.load(pixels) as second:
        other = second.infer(bytes_in)["logits"]
    with gd.load(plain) as first, gd.load(pixels) as second, gd.load(plain) as third:
        assert np.array_equal(first.infer(floats)["logits"], alone)
        assert np.array_equal(second.infer(bytes_in)["logits"], other)
        assert np.array_equal(third.infer(floats)["logits"], alone)


def test_any_number_of_threads_gives_the_same_bits(tiny_bundle):
    batch = Tiny().example(3)["input"]
    with gd.load(tiny_bundle("native"), threads=1) as one:
        alone = one(batch)
    for threads in (2, 3):
        with gd.load(tiny_bundle("native"), threads=threads) as some:
            assert some.info()["threads"] == threads
            assert np.array_equal(some(batch), alone)


def test_the_plan_tells_what_the_library_has(tiny_bundle):
    found = program.read((tiny_bundle("native") / program.PLAN).read_bytes())

    assert [step.kind for step in found.steps if step.bits] == ["stem", "depthwise", "vector"]
    assert [step.macs for step in found.steps if step.bits] == [8 * 27 * 64, 8 * 9 * 64, 80]
    assert found.weights_bytes == (tiny_bundle("native") / program.WEIGHTS).stat().st_size


@pytest.mark.parametrize(
    ("built", "architecture", "flags", "best"),
    [
        (["x86-64-v3", "x86-64"], "x86-64", AVX2, "x86-64-v3"),
        (["x86-64-v3", "x86-64"], "x86-64", AVX2 - {"fma"}, "x86-64"),
        (["x86-64-v4", "x86-64-v3"], "x86-64", AVX2 | {"avx512f"}, "x86-64-v3"),
        (["x86-64-v3"], "x86-64", frozenset(), None),
        (["x86-64-v3", "aarch64"], "aarch64", frozenset({"asimd"}), "aarch64"),
        (["x86-64-v3"], "riscv64", frozenset(), None),
    ],
)
def test_the_best_library_that_the_processor_can_run_is_chosen(built, architecture, flags, best):
    assert program.chosen(built, architecture, flags) == best


def test_a_processor_without_the_instructions_is_refused_with_the_arch_that_would_help(tiny_bundle, monkeypatch):
    monkeypatch.setattr(machine, "architecture", lambda: "aarch64")
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"asimd"}))

    with pytest.raises(UnsupportedHardware, match=r"was built for .*this processor is aarch64") as caught:
        gd.load(tiny_bundle("native"))

    assert caught.value.hint == "ghostdeploy export -t native --arch aarch64"


def test_an_altered_library_is_refused_before_it_is_loaded(tiny_bundle, tmp_path):
    copy = shutil.copytree(tiny_bundle("native"), tmp_path / "copy")
    library = next((copy / "lib").iterdir())
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)

    with pytest.raises(BundleError, match=r"lib/.*SHA-256"):
        gd.load(copy)


def test_a_library_of_another_network_is_refused(tiny_bundle):
    from ghostdeploy.runtimes.native.library import Library

    path = tiny_bundle("native")
    found = program.read((path / program.PLAN).read_bytes())
    data, weights = next((path / "lib").iterdir()).read_bytes(), np.fromfile(path / program.WEIGHTS, np.uint8)

    with pytest.raises(ValueError, match="of another network"):
        Library(data, weights, found.identity[::-1])


def test_a_plan_of_another_schema_is_refused(tiny_bundle):
    found = program.read((tiny_bundle("native") / program.PLAN).read_bytes())

    with pytest.raises(ValueError, match="schema 2, expected 1"):
        program.read(msgspec.json.encode(msgspec.structs.replace(found, schema=2)))

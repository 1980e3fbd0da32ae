"""A bundle says what it needs of a processor: without what is right depends on it is refused, slow ones are told."""

from __future__ import annotations

import logging

import msgspec
import pytest

import ghostdeploy as gd
from ghostdeploy import needs, runtimes, targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.deploy.export.advice import recommended
from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.needs import Needs, applying, missing, slow_because
from tests.bundles import make_bundle

A72 = frozenset({"fp", "asimd", "crc32"})
A76 = A72 | {"asimddp", "asimdhp"}
AVX2, VNNI = frozenset({"avx2"}), frozenset({"avx2", "avx512_vnni"})


def bundle_that_needs(folder, **fields):
    made = make_bundle(folder, "onnx")
    need = Needs(precision="fp32", architecture="x86-64", why="it is made so", **fields)
    manifest = msgspec.structs.replace(open_bundle(made).manifest, needs=(need,))
    (made / "manifest.json").write_bytes(encode(manifest))
    return made


@pytest.fixture(autouse=True)
def _processor(monkeypatch):
    monkeypatch.setattr(runtimes, "architecture", lambda: "x86-64")
    monkeypatch.setattr(runtimes, "cpu_flags", lambda: AVX2)
    monkeypatch.setattr(runtimes, "cpu_name", lambda: "Paper 1")


def test_a_bundle_that_would_be_wrong_here_is_refused(tmp_path):
    path = bundle_that_needs(tmp_path, right=("avx2", "amx_int8"))

    with pytest.raises(UnsupportedHardware, match="is right only on processors with amx_int8, which Paper 1 lacks"):
        gd.load(path)


def test_a_bundle_that_is_slow_here_is_told_to_the_log(tmp_path, caplog):
    path = bundle_that_needs(tmp_path, fast=("amx_int8",))

    with caplog.at_level(logging.INFO, "ghostdeploy"), gd.load(path, threads=1):
        pass
    assert "saves memory and no time here: without amx_int8 it is made so" in caplog.text


@pytest.mark.parametrize("fields", [{"right": ("avx2",)}, {"fast": ("avx2", "other")}, {}])
def test_what_is_there_is_neither(fields, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "ghostdeploy"), gd.load(bundle_that_needs(tmp_path, **fields), threads=1):
        pass

    assert "saves memory" not in caplog.text


def test_a_bundle_of_before_needs_nothing(tmp_path):
    assert open_bundle(make_bundle(tmp_path, "onnx")).manifest.needs == ()


@pytest.mark.parametrize(
    ("target", "architecture", "flags", "slow"),
    [
        ("openvino", "x86-64", VNNI, False),
        ("openvino", "x86-64", AVX2, True),
        ("openvino", "aarch64", A76, True),
        ("tflite", "aarch64", A76, False),
        ("tflite", "aarch64", A72, True),
    ],
)
def test_rows_say_where_int8_is_fast(target, architecture, flags, slow):
    need = applying(targets.find(target).needs_of("int8"), "int8", architecture)

    assert bool(slow_because(need, flags)) is slow
    assert missing(need, flags) == []


def test_float_and_gpus_need_nothing_of_the_processor():
    assert targets.find("openvino").needs_of("fp32") == ()
    assert targets.find("tensorrt").needs_of("int8") == ()


def test_unknown_flags_refuse_and_tell_nothing():
    need = Needs(precision="int8", architecture="x86-64", right=("a",), fast=("b",), why="")

    assert (missing(need, ()), slow_because(need, ())) == ([], None)
    assert slow_because(applying(needs.INT8_ON_X86, "int8", "aarch64"), ()) == "INT8 layers are computed in float"


def test_int8_is_recommended_on_arm_where_an_engine_has_integer_kernels():
    assert recommended(targets.find("tflite"), A76) == "int8"
    assert recommended(targets.find("openvino"), A76) == "hybrid"
    assert recommended(targets.find("openvino"), VNNI) == "int8"

"""Bundles are proven on emulated Arm cores, each engine in an emulated process of its own."""

from __future__ import annotations

import pytest

from ghostdeploy.device import receipt
from tests.commands import run
from tests.emulated import require_emulator

ENGINES = ("onnx", "openvino", "tflite", "ncnn")


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
def test_every_engine_in_float(capsys, tiny_bundle, tmp_path, core):
    require_emulator(core)
    paths = [tiny_bundle(name) for name in ENGINES]

    answer = run(capsys, "verify", *paths, "--on", f"qemu://{core}", "--receipt", tmp_path / "r.json", "--json")

    assert answer.code == 0, answer.err
    assert [entry["verdict"] for entry in answer.document] == ["passed"] * len(ENGINES)
    device = answer.document[0]["device"]
    assert device["emulated"]
    assert device["architecture"] == "aarch64"
    assert ("asimddp" in device["features"]) == (core == "cortex-a76")
    for found in receipt.read(tmp_path / "r.json"):
        assert found.latency is None
        assert "computes the processor" in found.no_latency_because
        assert any("times mean nothing" in rule for rule in found.validity)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "tflite", "ncnn"])
def test_int8_is_held_against_its_simulation(capsys, tiny_bundle, target):
    require_emulator("cortex-a72")

    answer = run(capsys, "verify", tiny_bundle(target, "int8"), "--on", "qemu://cortex-a72", "--json")

    assert answer.code == 0, answer.err
    assert answer.document[0]["execution"]["isa"] == "aarch64 NEON"

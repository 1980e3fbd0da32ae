"""A kit proves its bundles where nobody can reach, with nothing but Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from ghostdeploy.device import receipt
from ghostdeploy.isolation import INTERPRETER
from ghostdeploy.remote.emulator import wheels
from ghostdeploy.remote.kit import make_kit
from tests.commands import assert_one_sentence, run
from tests.emulated import require_emulator, run_python


@pytest.fixture(scope="module")
def kit(tmp_path_factory, tiny_bundle):
    """A kit of two bundles; fetches the engine, as setting up the emulator did."""
    require_emulator("cortex-a53")
    out = tmp_path_factory.mktemp("kits") / "kit"
    return make_kit(out, [], [tiny_bundle("ncnn"), tiny_bundle("ncnn", "int8")])


def prove(kit, out, *words):
    emulator = require_emulator("cortex-a53")
    prefix = {INTERPRETER: json.dumps(emulator.interpreter)}  # which a real device does not need
    bare = emulator.environment(variables=prefix | {"PYTHONPATH": ""})
    return run_python(emulator, kit / "prove.py", "-o", out, *words, **bare)


@pytest.mark.slow
def test_its_receipt_comes_home(capsys, kit, tmp_path, tiny_bundle):
    done = prove(kit, tmp_path / "r.json", "--no-bench")

    assert done.returncode == 0, done.stderr
    first, second = receipt.read(tmp_path / "r.json")
    assert (first.bundle.precision, second.bundle.precision) == ("fp32", "int8")
    assert first.device.processor.endswith("× Cortex-A53")
    assert first.device.reached == "kit"
    checked = run(capsys, "verify", tmp_path / "r.json", tiny_bundle("ncnn"), tiny_bundle("ncnn", "int8"))
    assert checked.code == 0, checked.err


@pytest.mark.slow
def test_a_file_that_was_changed_on_the_way_is_found(kit, tmp_path):
    copied = shutil.copytree(kit, tmp_path / "kit")
    (copied / "bundles/tiny-ncnn-fp32/model.bin").write_bytes(b"other weights")

    done = prove(copied, tmp_path / "r.json", "--no-bench")

    assert done.returncode == 4
    assert done.stderr.strip() == "error: bundles/tiny-ncnn-fp32/model.bin was altered: copy the kit again"


@pytest.mark.slow
def test_another_machine_is_told(kit):
    done = subprocess.run([sys.executable, kit / "prove.py"], capture_output=True, text=True, check=False)

    assert done.returncode == 4
    assert "error: this kit is for aarch64, this machine is" in done.stderr


@pytest.mark.slow
def test_it_holds_the_engine_of_its_bundles_and_no_other(kit):
    names = {path.name for path in (kit / "site").iterdir()}

    assert {"ncnn", "numpy", "PIL", "msgspec"} <= names
    assert not names & {"onnxruntime", "openvino", "ai_edge_litert"}


def test_a_target_whose_bundles_are_all_that_runs_gets_no_engine(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(wheels, "install", lambda site, lines: listed.extend(lines.read_text().splitlines()))

    make_kit(tmp_path / "kit", ["native"], [])

    names = {line.partition("==")[0] for line in listed if line.strip()}
    assert {"numpy", "msgspec"} <= names
    assert not names & {"onnxruntime", "openvino", "ai-edge-litert", "ncnn", "executorch"}


def test_what_makes_no_kit(capsys, tiny_bundle, tmp_path):
    there = tmp_path / "there"
    there.mkdir()

    nothing = run(capsys, "device-kit", "-o", tmp_path / "k")
    gpu = run(capsys, "device-kit", "-t", "tensorrt", "-o", tmp_path / "k")
    unknown = run(capsys, "device-kit", "-t", "onx", "-o", tmp_path / "k")
    taken = run(capsys, "device-kit", "-t", "ncnn", "-o", there)
    damaged = run(capsys, "device-kit", there, "-o", tmp_path / "k")

    assert_one_sentence(nothing, 2, "a kit of nothing", "-t TARGET")
    assert_one_sentence(gpu, 2, "the engine of tensorrt has no package for Arm Linux", "onnx, openvino, tflite, ncnn")
    assert_one_sentence(unknown, 2, "unknown target 'onx'", "did you mean onnx")
    assert_one_sentence(taken, 4, "is there already")
    assert_one_sentence(damaged, 3, "is not a bundle")
    assert list(tmp_path.iterdir()) == [there]

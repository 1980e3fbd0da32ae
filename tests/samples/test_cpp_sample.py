"""The C++ sample: compiled by the command in the docs, run on real bundles, and it tells right from wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.arrays import read_arrays
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import MissingDependency
from ghostdeploy.samples import cpp
from tests.conftest import require, require_program
from tests.exported import sample_bundle
from tests.shared import shared_folder

FOUND = re.compile(
    r"max abs difference (\S+) of (\S+), cosine (\S+), SQNR (\S+) dB, top-1 agreement (\d+) of (\d+)", re.MULTILINE
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    require("openvino")
    compiler = require_program("g++")
    with shared_folder(tmp_path_factory, "cpp") as folder:
        if not (folder / "classify").exists():
            flags = subprocess.run(
                [sys.executable, "-m", "ghostdeploy.samples.cpp"], capture_output=True, text=True, check=True
            )
            strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
            command = [compiler, "-std=c++17", "-O2", *strict, "-o", "classify", *flags.stdout.split()]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return folder / "classify"


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_it_replays_the_golden_vectors_of_an_exported_bundle(program, tmp_path_factory):
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "openvino", precision="fp32")

    done = run(program, path)

    assert done.returncode == 0, done.stderr
    max_abs, largest, cosine, _, agreeing, count = FOUND.search(done.stdout).groups()
    assert float(max_abs) <= 1e-4 * float(largest)
    assert float(cosine) >= 0.99999
    assert agreeing == count == "16"
    assert done.stdout.endswith("within the fp32 tolerance\n")


def test_it_prints_the_classes_that_python_finds(program, tmp_path_factory):
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "openvino", precision="fp32")
    with gd.load(path) as model:
        logits = model(open_bundle(path).golden()[0]["input"]).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    labels, best = open_bundle(path).labels(), (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)

    lines = [line for line in run(program, path).stdout.splitlines() if line.startswith("image ")]

    expected = [(labels[row.argmax()], p) for row, p in zip(logits, best, strict=True)]
    found = [re.fullmatch(r"image \d+: (.+) (\d+\.\d) %", line).groups() for line in lines]
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [float(p) for _, p in found] == pytest.approx([100 * p for _, p in expected], abs=0.06)


@pytest.mark.parametrize(
    ("precision", "fields"),
    [
        ("fp32", {"batch": 2}),
        ("fp32", {"batch": None}),
        ("fp32", {"layout": "nhwc"}),
        ("fp32", {"side": True}),
        ("fp16", {}),
        ("int8", {}),
    ],
    ids=["fixed batch", "dynamic batch", "uint8 pixels", "two inputs", "fp16", "int8"],
)
def test_every_kind_of_bundle_is_within_its_tolerance(program, tiny_bundle, precision, fields):
    done = run(program, tiny_bundle("openvino", precision, **fields))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"within the {precision} tolerance" in done.stdout


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    path = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("openvino"), path)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_outputs_beyond_the_tolerance_are_exit_code_1(program, copied, save):
    arrays = read_arrays(copied / "golden.npz")
    arrays["logits"] = arrays["logits"] + np.float32(3e-4) * np.abs(arrays["logits"]).max()
    save(copied / "golden.npz", **arrays)

    done = run(program, copied)

    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("outside the fp32 tolerance\n")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda path: (path / "golden.npz").write_bytes(b"no archive"), "not an .npz file"),
        (lambda path: flip(path / "golden.npz", 200), "damaged"),
        (
            lambda path: (path / "golden.npz").write_bytes((path / "golden.npz").read_bytes()[4000:]),
            "golden|damaged|early",
        ),
        (lambda path: np.savez(path / "golden.npz", input=np.zeros((3, 3, 16, 16), np.float32)), "lacks logits"),
        (lambda path: np.savez(path / "golden.npz", input=np.zeros((3, 3, 8, 8), np.float32)), "does not fit"),
        (lambda path: np.savez(path / "golden.npz", input=np.zeros((3, 3, 16, 16))), "dtype <f8"),
        (lambda path: (path / "model.xml").write_text("<net>"), "model.xml|xml"),
    ],
    ids=["no manifest", "no archive", "flipped byte", "half an archive", "no logits", "shape", "dtype", "payload"],
)
def test_a_bundle_that_cannot_be_run_is_exit_code_3(program, copied, damage, words):
    damage(copied)

    done = run(program, copied)

    assert done.returncode == 3, done.stdout
    assert re.search(f"^error: .*({words})", done.stderr, re.MULTILINE | re.DOTALL)


def test_a_bundle_for_another_engine_is_refused(program, tiny_bundle):
    done = run(program, tiny_bundle("onnx"))

    assert (done.returncode, done.stderr.count("has target onnx, expected openvino")) == (3, 1)


def test_no_bundle_is_a_usage_error(program):
    assert run(program).returncode == 2


def test_a_missing_wheel_names_the_extra(monkeypatch):
    monkeypatch.setattr(cpp, "find_spec", lambda name: None)

    with pytest.raises(MissingDependency, match="headers and library") as caught:
        cpp.compiler_arguments()

    assert 'pip install "ghostdeploy[openvino-runtime]"' in caught.value.hint

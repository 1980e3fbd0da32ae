"""Factories and timm's names on the command line: what works gives a bundle, what does not one sentence."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch

from tests.commands import assert_one_sentence, run

CODE = """
from torch import nn

def net(num_classes=3):
    layers = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4, num_classes))

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(*net())

def wide(width, depth):
    return net()

def counted(num_classes):
    return net(num_classes)

def broken():
    raise ValueError("weights not found\\nsecond line")

def nothing():
    return "a string"

def leaving():
    raise SystemExit("bye")

built = net()
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a file, a package, and another file outside it."""
    inside = tmp_path / "here"
    (inside / "package").mkdir(parents=True)
    (inside / "package" / "__init__.py").touch()
    for path in (inside / "nets.py", inside / "package" / "nets.py", tmp_path / "outside.py", inside / "my nets.py"):
        path.write_text(CODE)
    (inside / "syntax.py").write_text("def f(:\n")
    (inside / "binary.py").write_bytes(b"\0\xff")
    monkeypatch.chdir(inside)
    yield inside
    for name in ("package", "package.nets"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("spec", "classes"),
    [
        ("nets.py:net", None),
        ("nets.py:net", 7),
        ("nets.py:counted", 4),
        ("nets.py:Net", None),
        ("./nets.py:net", None),
        ("my nets.py:net", None),
        ("../outside.py:net", None),
        ("package.nets:net", None),
        ("package/nets.py:net", None),
    ],
)
def test_a_factory_is_planned_whatever_its_place(spec, classes, folder, capsys):
    options = () if classes is None else ("--num-classes", classes)

    answer = run(capsys, "export", spec, *options, "-t", "onnx", "--image-size", "32", "--dry-run", "--json")

    assert answer.code == 0, answer.err
    assert (answer.document["source"], answer.document["family"]) == (spec, "custom")


def test_a_factory_outside_the_working_directory_becomes_a_proven_bundle(folder, capsys):
    answer = run(capsys, "export", "../outside.py:Net", "-t", "onnx", "--image-size", "32", "--json")

    manifest = answer.document["bundles"][0]["manifest"]
    assert (answer.code, manifest["verdict"], manifest["model"]["num_classes"]) == (0, "passed", 3)
    assert (folder / "build" / "Net-onnx-fp32").is_dir()


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ("nets.py:wide", 2, ("needs width, depth", "without arguments")),
        ("nets.py:counted", 2, ("needs num_classes", "--num-classes N")),
        ("nets.py:built", 2, ("is already a Sequential", "wrap it")),
        ("nets.py:number", 2, ("is a int", "expected a function")),
        ("nets.py:nett", 2, ("does not exist", "did you mean")),
        ("nets.py:", 2, ("expected package.module:factory",)),
        (":net", 2, ("expected package.module:factory",)),
        ("nets.py", 2, ("a path", "nets.py:FACTORY")),
        ("nowhere.py:net", 2, ("nowhere.py does not exist",)),
        ("package:net", 2, ("package:net does not exist",)),
        ("package.nowhere:net", 2, ("no Python module package.nowhere",)),
        ("nets.py:broken", 3, ("raised ValueError: weights not found", "-v")),
        ("nets.py:nothing", 3, ("returned str", "torch.nn.Module")),
        ("nets.py:leaving", 3, ("raised SystemExit: bye",)),
        ("syntax.py:f", 3, ("syntax.py", "SyntaxError", "-v")),
        ("binary.py:f", 3, ("binary.py", "null bytes")),
        ("timm:", 2, ("expected timm:NAME",)),
    ],
)
def test_a_factory_that_fails_is_one_sentence_with_its_exit_code(spec, code, words, folder, capsys):
    answer = run(capsys, "export", spec, "-t", "onnx", "--image-size", "32", "-o", folder / "out")

    assert_one_sentence(answer, code, *words)


def test_num_classes_for_a_factory_that_takes_none_is_refused(folder, capsys):
    answer = run(capsys, "export", "nets.py:Net", "--num-classes", "9", "-t", "onnx", "-o", folder / "out")

    assert_one_sentence(answer, 2, "takes no argument num_classes", "leave out --num-classes")


def test_the_installed_command_finds_modules_of_the_working_directory(folder):
    command = [sys.executable, "-m", "ghostdeploy", "export", "package.nets:net", "-t", "onnx", "--dry-run", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_timm_names_become_proven_bundles_where_timm_is_installed(capsys, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import timm
        except (ImportError, OSError, RuntimeError) as error:  # a torchvision of another build raises the last two
            pytest.skip(f"timm cannot be imported here: {error}")
    torch.save(timm.create_model("ghostnet_050", num_classes=4).state_dict(), tmp_path / "weights.pth")
    options = ("--num-classes", "4", "--weights", tmp_path / "weights.pth", "--image-size", "64")

    answer = run(capsys, "export", "timm:ghostnet_050", *options, "-t", "onnx", "-o", tmp_path, "--json")

    manifest = answer.document["bundles"][0]["manifest"]
    assert (manifest["verdict"], manifest["model"]["num_classes"]) == ("passed", 4)
    assert manifest["model"]["source"] == "timm:ghostnet_050 with file:weights.pth"


def test_timm_names_without_timm_are_exit_4(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)

    answer = run(capsys, "export", "timm:ghostnet_100", "-t", "onnx", "-o", tmp_path)

    assert_one_sentence(answer, 4, "timm:ghostnet_100 needs the package timm", "pip install timm")

"""A target that somebody else wrote goes through every command, and no other file knows it.

`docs/adding_a_target.md` tells these files as a tutorial.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from tests.commands import assert_one_sentence, run
from tests.plugin.installed import SOURCES, installed_plugin

ROOT = Path(__file__).parents[2]
CASES = "toy-fp32-batch-dynamic or toy-int8-batch-1"
NETWORK = """
import torch
from torch import nn


def network():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
"""


@pytest.fixture
def plugin(tmp_path_factory, monkeypatch):
    """The plugin is installed, for this process and its children."""
    monkeypatch.syspath_prepend(str(installed_plugin(tmp_path_factory)))
    targets.plugins.cache_clear()
    yield
    targets.plugins.cache_clear()
    for name in [name for name in sys.modules if name.startswith("ghostdeploy_toy")]:
        del sys.modules[name]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder of a user: a network and an image set."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    np.savez("set.npz", images=rng.integers(0, 256, (300, 24, 24, 3), np.uint8), labels=np.arange(300) % 4)
    return tmp_path


def export(capsys, *words):
    usual = ("net.py:network", "--image-size", 24, "--crop-fraction", 1, "--out", "out")
    return run(capsys, "export", *usual, *words)


def test_without_the_plugin_the_target_is_unknown(here, capsys):
    assert_one_sentence(export(capsys, "-t", "toy"), 2, "unknown target 'toy'")


@pytest.mark.slow
def test_every_command_knows_the_target(plugin, here, capsys):
    document = run(capsys, "doctor", "--json").document
    assert next(row for row in document["targets"] if row["target"] == "toy")["can_export"]

    made = export(capsys, "-t", "toy", "-t", "onnx", "--json")
    assert made.code == 0, made.err
    assert open_bundle("out/network-toy-fp32").manifest.tools["onnx"]
    quantized = export(capsys, "-t", "toy", "--int8", "--calib", "set.npz", "--json")
    assert quantized.code == 0, quantized.err
    assert open_bundle("out/network-toy-int8").manifest.quantization.scheme.startswith("activations uint8")

    bundles = ("out/network-toy-fp32", "out/network-toy-int8")
    assert run(capsys, "verify", *bundles).code == 0
    assert run(capsys, "inspect", *bundles).code == 0
    assert "toy" in run(capsys, "eval", *bundles, "--data", "set.npz", "--reference", "out/network-onnx-fp32").out
    assert run(capsys, "diagnose", bundles[1]).code == 0
    raced = run(capsys, "bench", *bundles, "--rounds", 8, "--against", "default", "--model", "net.py:network", "--json")
    assert raced.code == 0, raced.err
    assert {one["target"] for one in raced.document["bundles"]} == {"toy"}


@pytest.mark.slow
def test_tune_may_pick_it(plugin, here, capsys):
    words = ("net.py:network", "--image-size", 24, "--crop-fraction", 1, "--out", "out", "--budget", 1)

    tuned = run(capsys, "tune", *words, "-t", "toy", "--precision", "fp32", "--json")

    assert tuned.code == 0, tuned.err
    assert open_bundle(tuned.document["bundle"]).manifest.target == "toy"


@pytest.mark.slow
def test_it_keeps_the_promises_of_all_runtimes(tmp_path_factory):
    site = installed_plugin(tmp_path_factory)
    path = os.pathsep.join((str(site), os.environ.get("PYTHONPATH", "")))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/conformance", "-q", "-k", CASES, "-m", "", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "GHOSTDEPLOY_REQUIRE": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100


def test_a_plugin_that_cannot_be_imported_is_a_warning_and_costs_nobody_anything(tmp_path, monkeypatch, caplog):
    facts = tmp_path / "broken-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[ghostdeploy.targets]\nbroken = no_such_module:ROW\nonnx = os:path\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    targets.plugins.cache_clear()

    assert list(targets.TARGETS) == [row.name for row in targets.ROWS]

    assert "the target broken of broken cannot be used: ModuleNotFoundError: No module named" in caplog.text
    assert "os:path is not a Target" in caplog.text
    targets.plugins.cache_clear()


@pytest.mark.parametrize("path", sorted(SOURCES.glob("ghostdeploy_toy/*.py")), ids=lambda path: path.stem)
def test_the_tutorial_shows_the_files_as_they_are(path):
    page = (ROOT / "docs" / "adding_a_target.md").read_text()

    assert f"```python\n{path.read_text()}```" in page

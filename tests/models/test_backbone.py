"""A user's own backbone with several outputs: folded, exported, proven; the script of docs/folding.md as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from tests.commands import assert_one_sentence, run
from tests.onnx_files import CALIB, DATA, saved, small

PAGE = Path(__file__).parents[2] / "docs" / "folding.md"


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.near = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.far = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6))

    def forward(self, x):
        near = self.near(x)
        return near, [self.far(near)]


def test_the_script_in_the_docs_does_what_the_page_says(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "FoldBatchNorm: 29 places" in done.stdout
    assert "passed [('p3', (1, 32, 12, 12)), ('p4', (1, 64, 6, 6)), ('p5', (1, 96, 3, 3))]" in done.stdout
    manifest = open_bundle(tmp_path / "build" / "backbone-onnx-fp32").manifest
    assert manifest.parity.max_abs <= 1e-4 * manifest.parity.reference_max_abs


def test_outputs_without_keys_are_numbered(tmp_path):
    bundle = gd.export(Maps(), target="onnx", out=tmp_path, preprocess={"size": 32})

    outputs = [(spec.name, spec.shape) for spec in bundle.manifest.outputs]
    assert outputs == [("output_0", (1, 4, 16, 16)), ("output_1", (1, 6, 8, 8))]
    assert bundle.manifest.verdict == "passed"


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "int8", "calibration": samples.calibration_set(), "task": "classify"},
        {"data": samples.evaluation_set()},
    ],
    ids=["named", "labels"],
)
def test_what_is_judged_by_classes_is_refused_for_maps(options, tmp_path):
    with pytest.raises(gd.errors.UsageError, match=r"judges by the top-1 class, .* output_0 has shape") as error:
        gd.export(Maps(), target="onnx", out=tmp_path, preprocess={"size": 32}, **options)
    assert "raw" in error.value.hint


@pytest.mark.parametrize("options", [("--int8", *CALIB, "--task", "classify"), DATA], ids=["named", "labels"])
def test_the_same_holds_for_an_onnx_backbone(options, capsys, tmp_path):
    model = small()
    del model.graph.output[0]
    path = saved(model, tmp_path / "maps.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", *options, "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, "map has shape (N, 8, 16, 16)", "expected (N, classes)")


def test_a_classifier_with_a_map_beside_its_scores_is_quantized(capsys, tmp_path):
    path = saved(small(), tmp_path / "both.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", "--int8", *CALIB, "-o", tmp_path / "out", "--json")

    manifest = answer.document["bundles"][0]["manifest"]
    assert [spec["name"] for spec in manifest["outputs"]] == ["scores", "map"]
    assert manifest["execution"]["verdict"] == "passed"

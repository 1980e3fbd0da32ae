"""INT8 of a network whose outputs nobody explained: each is judged on its own scale, and none hides another."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.errors import GateFailed, UsageError
from tests.commands import run
from tests.conftest import require
from tests.further import further

SIZE = 48


class Detector(nn.Module):
    """Boxes in pixels and scores from 0 to 1, joined as detectors join them; a small vector beside them."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
            *(nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)),
        )
        self.boxes, self.scores, self.vector = nn.Conv2d(24, 4, 1), nn.Conv2d(24, 6, 1), nn.Linear(24, 5)

    def forward(self, x):
        x = self.body(x)
        boxes = (self.boxes(x).sigmoid() * SIZE).flatten(2)
        rows = torch.cat([boxes, self.scores(x).sigmoid().flatten(2)], 1).transpose(1, 2)
        return {"rows": rows, "small": self.vector(x.mean((2, 3))) * 1e-3}


def detector():
    torch.manual_seed(0)
    made = Detector()
    with torch.no_grad():
        for _ in range(5):
            made(torch.rand(16, 3, SIZE, SIZE) * 4 - 2)
    return made.eval()


def images(count=96, seed=0):
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


@pytest.mark.parametrize(
    "target", further(("onnx", "openvino", "tflite", "tensorrt", "ncnn"), usual=("onnx", "tflite"))
)
def test_scores_survive_beside_pixels(target, tmp_path):
    require(target)
    network = detector()
    bundle = gd.export(
        network, target=target, precision="int8", calibration=images(), preprocess={"size": SIZE}, out=tmp_path
    )

    found = bundle.manifest
    assert (found.task.name, found.agreement, found.accuracy) == ("raw", None, None)
    assert {one.name: one.role for one in found.outputs} == {"rows": "values", "small": "values"}
    assert found.fidelity is not None
    assert [one.name for one in found.fidelity.outputs] == ["rows", "small"]
    assert all(one.sqnr_db is None or one.sqnr_db >= 20 for one in found.fidelity.outputs)
    golden = bundle.golden()[1]
    simulated = bundle.simulated()
    if simulated is not None:
        scores, wanted = simulated["rows"][..., 4:], golden["rows"][..., 4:]
        assert 20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(scores - wanted)) > 20
        assert len(np.unique(scores)) > 50


def test_a_limit_that_cannot_be_met_is_exit_1_with_the_output_that_misses_it(tmp_path):
    with pytest.raises(GateFailed) as caught:
        gd.export(
            detector(),
            target="onnx",
            precision="int8",
            calibration=images(),
            preprocess={"size": SIZE},
            min_sqnr=120,
            out=tmp_path,
            name="net",
        )

    assert caught.value.exit_code == 1
    manifest = json.loads((tmp_path / "net-onnx-int8" / "manifest.json").read_text())
    assert manifest["verdict"] == "failed"
    assert "small is" in manifest["failed_because"]
    assert "expected 120 dB" in manifest["failed_because"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "clasify"}, "unknown task 'clasify'"),
        ({"min_sqnr": 10.0}, "min SQNR is 10, expected 20 to 200"),
        ({"min_agreement": 0.5}, "min agreement is 0.5, expected 0.95 to 1"),
    ],
)
def test_bad_requests_are_one_sentence(options, words, tmp_path):
    with pytest.raises(UsageError) as caught:
        gd.export(detector(), target="onnx", out=tmp_path, **options)

    assert words in caught.value.message
    assert caught.value.exit_code == 2


def test_outputs_that_are_no_classes_are_refused_before_anything_is_calibrated(tmp_path, capsys, monkeypatch):
    (tmp_path / "net.py").write_text("import torch\n\ndef make():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "set.npz", images=images(40))

    done = run(capsys, "export", "net.py:make", "-t", "onnx", "--int8", "--calib", "set.npz", "--task", "classify")

    assert done.code == 2
    assert "expected (N, classes) of scores" in done.err
    assert not (tmp_path / "build").exists() or not list((tmp_path / "build").iterdir())

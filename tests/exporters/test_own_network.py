"""A factory of one's own, with a Ghost block that no family has and an odd image size, passes every gate."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from tests.commands import run
from tests.conftest import require
from tests.further import further

SIZE, CLASSES = 75, 5
CODE = """
import numpy as np
import torch
from torch import nn

PARTS = np.random.default_rng(0).integers(20, 236, (5, 5, 5, 3))


def images(count):
    noise = np.random.default_rng(count).integers(-20, 20, (count, 5, 5, 3))
    return (PARTS[np.arange(count) % 5] + noise).astype(np.uint8).repeat(20, 1).repeat(20, 2)


class Ghost(nn.Module):
    def __init__(self, wide, few, stride=1):
        super().__init__()
        self.few = nn.Sequential(nn.Conv2d(wide, few, 1, bias=False), nn.BatchNorm2d(few), nn.Hardswish())
        self.near = nn.Sequential(nn.Conv2d(few, few, 3, stride, 1, groups=few, bias=False), nn.BatchNorm2d(few))
        self.far = nn.Sequential(nn.Conv2d(few, few, 5, stride, 2, groups=few, bias=False), nn.BatchNorm2d(few))
        self.kept = nn.AvgPool2d(3, stride, 1) if stride > 1 else nn.Identity()

    def forward(self, x):
        few = self.few(x)
        return torch.cat([self.far(few), self.kept(few), self.near(few)], 1)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6())
        self.first, self.second, self.third = Ghost(12, 7, 2), Ghost(21, 7), Ghost(21, 16, 2)
        self.gate = nn.Sequential(nn.Conv2d(48, 12, 1), nn.ReLU(), nn.Conv2d(12, 48, 1), nn.Hardsigmoid())
        self.classifier = nn.Linear(96, 5)

    def vectors(self, x):
        y = self.first(self.stem(x))
        y = self.third(y + self.second(y))
        y = y * self.gate(y.mean((2, 3), keepdim=True))
        return torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1)

    def forward(self, x):
        return self.classifier(self.vectors(x))


def network():
    torch.manual_seed(0)
    made = Network()
    pixels = torch.from_numpy(images(80)[:, 12:87, 12:87]).permute(0, 3, 1, 2)
    scaled, wanted = (pixels / 255 - 0.45) / 0.225, 4 * torch.eye(5).repeat(16, 1)
    with torch.no_grad():
        for _ in range(20):
            made(scaled)
        data = torch.cat([made.eval().vectors(scaled), torch.ones(80, 1)], 1)
        found = torch.linalg.solve(data.T @ data + 0.01 * torch.eye(97), data.T @ wanted)
        made.classifier.weight.copy_(found[:-1].T)
        made.classifier.bias.copy_(found[-1])
    return made
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", further(targets.find("ncnn").precisions, usual=("int8",)))
def test_every_precision_of_ncnn_passes(precision, tmp_path, capsys):
    require("ncnn")
    (tmp_path / "own.py").write_text(CODE)
    np.savez(tmp_path / "images.npz", images=runpy.run_path(str(tmp_path / "own.py"))["images"](400))
    words = [] if precision == "fp32" else [f"--{precision}"]
    words += ["--calib", tmp_path / "images.npz"] if precision == "int8" else []

    answer = run(
        capsys, "export", f"{tmp_path}/own.py:network", "-t", "ncnn", *words, "--image-size", SIZE, "-o", tmp_path
    )

    assert answer.code == 0, answer.err
    (path,) = tmp_path.glob("*-ncnn-*")
    report = gd.verify(path)
    assert report.verdict == "passed"
    with gd.load(path, threads=1) as runtime:
        assert runtime(np.zeros((2, 3, SIZE, SIZE), np.float32)).shape == (2, CLASSES)

"""A small network with the shapes of a Ghost network, its float graph, its images, and the job of its quantizer."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ghostdeploy.bundle.manifest import Calibration
from ghostdeploy.convert.base import ExportJob, QuantizeSpec
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.program import save_program
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.exporters.onnx.exporter import OnnxExporter
from ghostdeploy.models.blocks import GhostModule
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.tasks.base import TaskInfo
from tests.recipes import RECIPES
from tests.shared import shared_folder

SIZE, CLASSES, IMAGES = 16, 10, 96
SPEC = Preprocess(size=SIZE, crop_fraction=1.0, interpolation="bilinear")


class SmallGhostNet(nn.Module):
    """Stem, two Ghost modules with a residual sum, a gate, classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.ghost1 = GhostModule(16, 32)
        self.ghost2 = GhostModule(32, 16, act=nn.Identity)
        self.reduce, self.expand = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.ghost2(self.ghost1(x))
        gate = torch.nn.functional.hardsigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.head((x * gate).mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = SmallGhostNet().train()
    with torch.no_grad():
        for _ in range(50):  # statistics of its own activations for the BatchNorms
            network(torch.randn(32, 3, SIZE, SIZE) + 2 * torch.randn(32, 3, 1, 1))
    return network.eval()


@pytest.fixture(scope="module")
def floating(network, tmp_path_factory):
    with shared_folder(tmp_path_factory, "small-ghost-net") as folder:
        path = folder / "model.onnx"
        if not path.exists():
            example = torch.randn(2, 3, SIZE, SIZE)
            folded, _ = fold(network, example, dynamic_batch=True)
            save_program(folded, example.numpy(), folder / "program.pt2", dynamic_batch=True)
            OnnxExporter().export(
                ExportJob(
                    source=str(folder / "program.pt2"),
                    folder=str(folder),
                    result="",
                    precision="fp32",
                    input_names=("input",),
                    output_names=("logits",),
                    dynamic_batch=True,
                    modules=tuple(name for name, _ in network.named_modules() if name),
                )
            )
    return onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)


@pytest.fixture(scope="module")
def pixels():
    """Coarse patterns around a colour of their own, so that pooled features differ from image to image."""
    rng = np.random.default_rng(0)
    colour, pattern = rng.uniform(0, 255, (IMAGES, 1, 1, 3)), rng.uniform(-60, 60, (IMAGES, 4, 4, 3))
    coarse = np.clip(colour + pattern, 0, 255).astype(np.uint8)
    return coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


@pytest.fixture(scope="module")
def batches(pixels):
    from ghostdeploy.preprocess import as_input

    return [as_input(pixels[i : i + 32], SPEC) for i in range(0, IMAGES, 32)]


@pytest.fixture
def job(floating, pixels, batches, tmp_path):
    def make(**changes):
        logits = GraphRunner(floating).logits(batches)
        np.save(tmp_path / "pixels.npy", pixels)
        np.save(tmp_path / "reference.npy", changes.pop("reference", logits))
        np.save(tmp_path / "golden.npy", batches[0][:4])
        spec = QuantizeSpec(
            recipe=RECIPES["openvino"],
            preprocess=SPEC,
            conditioned=None,
            calibration=str(tmp_path / "pixels.npy"),
            fingerprint=Calibration(count=IMAGES, sha256="0" * 64),
            gate=str(tmp_path / "pixels.npy"),
            task=TaskInfo(),
            reference={"logits": str(tmp_path / "reference.npy")},
            labels=None,
            golden=str(tmp_path / "golden.npy"),
            max_drop=0.01,
            required_agreement=0.5,
            required_db=20.0,
            values_judge=False,
        )
        return msgspec.structs.replace(spec, **changes)

    return make

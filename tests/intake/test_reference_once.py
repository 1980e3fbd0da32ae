"""The reference sees the golden images once and those that judge once, however many targets and layouts there are."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch

from ghostdeploy.deploy.export.packaging import Converted
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.inputs import GOLDEN_COUNT, Inputs
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.deploy.intake.records import Folded, Interface, ReferenceRun
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.plan.steps import ExportRun
from ghostdeploy.models.source import from_module
from tests.runs import run_in

PREPROCESS = {"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"}
COUNT = 40
CUT = 3
"""Golden images that are parts of images of the set; `originals` keeps one whole."""


class Counting(Reference):
    """Keeps what each forward call was given."""

    def __init__(self, module):
        super().__init__(module)
        self.calls = []

    def outputs(self, batch):
        self.calls.append(np.array(batch))
        return super().outputs(batch)


class Watched(PyTorchModel):
    """A module whose references are kept."""

    made: ClassVar = []

    def reference(self):
        self.made.append(Counting(self.loaded.module))
        return self.made[-1]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(Watched, "made", [])
    torch.manual_seed(0)
    pooled = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4))
    return Watched(from_module(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), *pooled), name="net"))


@pytest.fixture
def data(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(COUNT) % 4)
    return tmp_path / "set.npz"


def seen(model, config):
    """Returns how often the reference saw each image of the set, and whether it is a golden one as it is."""
    (reference,) = model.made
    images = Inputs.choose(model, config)
    spec = model.preprocess_for(config)
    shown = Counter(image.tobytes() for call in reference.calls for image in call)
    golden = {image.tobytes() for image in images.golden(spec)}
    judging = [image.tobytes() for batch in images.data.batches(spec) for image in batch]
    return [(shown[image], image in golden) for image in judging]


def once_for_each_set(found):
    """Tells whether each image was seen once, and golden ones once more; a few are probed for what the batch does."""
    probed = [times for times, golden in found if golden and times > 2]
    usual = [times == 1 + golden for times, golden in found]
    return sum(golden for _, golden in found) == GOLDEN_COUNT - CUT and usual.count(False) == len(probed) <= 2


def test_two_targets_of_different_layouts_run_the_reference_once_on_each_set(model, data, tmp_path):
    config = ExportConfig(targets=("onnx", "tflite"), data=data, out=tmp_path / "out", preprocess=PREPROCESS)

    exported = run_export(lambda: model, config)

    assert [bundle.manifest.parity.verdict for bundle in exported.bundles] == ["passed", "passed"]
    assert [bundle.manifest.preprocess.layout for bundle in exported.bundles] == ["nchw", "nhwc"]
    assert once_for_each_set(seen(model, config))


@pytest.mark.parametrize("options", [{"input": "uint8-nhwc"}, {"precision": "int8"}], ids=["pixels", "int8"])
def test_pixels_and_calibration_run_it_no_further_time(options, model, data, tmp_path):
    photos = np.random.default_rng(1).integers(0, 256, (200, 16, 16, 3), np.uint8)
    work = tmp_path / "work"
    work.mkdir()
    run = run_in(work, "onnx", "tflite", data=data, calibration=photos, preprocess=PREPROCESS, **options)

    interface = model.prepare(run).seen.interface

    assert interface.with_layout("nhwc").golden_outputs is interface.golden_outputs
    assert once_for_each_set(seen(model, run.config))


@pytest.mark.parametrize("record", [ExportConfig, ExportRun, Interface, ReferenceRun, Folded, Converted])
def test_the_record_of_a_stage_does_not_change(record):
    assert record.__dataclass_params__.frozen
    assert not {"Any", "object"} & {field.type for field in dataclasses.fields(record)}

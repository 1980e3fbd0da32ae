"""A detector's ONNX file as a third party gives it away: one image, `images` → `output0` (1, 4 + classes, points)."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

import ghostdeploy as gd
from ghostdeploy import targets
from tests.conftest import require
from tests.further import further
from tests.tasks.test_foreign_networks import CLASSES, SIZE, Fused, made, scenes

RECORD = "yolov8:strides=8/16,eval.score=0.02,predict.score=0.3"
SPEC = {"size": SIZE, "resize": "letterbox", "crop_fraction": 1.0, "interpolation": "bilinear", "pad": 114}
TINY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
INTAKE = targets.intake_of("detector.onnx")
EVERY = [row.name for row in targets.TARGETS.values() if row.device is None and targets.takes(row, INTAKE)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "detector.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            made(Fused, SIZE),
            (torch.zeros(1, 3, *SIZE),),
            str(path),
            dynamo=True,
            opset_version=18,
            input_names=["images"],
            output_names=["output0"],
            external_data=False,
            verbose=False,
        )
    return path


def exported(file, target, precision, out):
    return gd.export(
        str(file),
        target=target,
        precision=precision,
        task="detect",
        decode=RECORD,
        calibration=scenes(96, SIZE),
        preprocess=SPEC | TINY,
        batch=1,
        out=out,
    )


@pytest.mark.parametrize("target", further(EVERY, usual=("openvino",)))
def test_a_file_of_others_finds_the_same_boxes_on_every_target(file, target, tmp_path):
    require(target, execution=True)
    bundle = exported(file, target, "fp32", tmp_path)

    assert bundle.manifest.verdict == "passed", bundle.manifest.failed_because
    assert bundle.manifest.task.decode["classes"] == CLASSES
    image = scenes(1, SIZE, 9)
    given = (image.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(str(file)).run(None, {"images": given})
    with gd.load(bundle.path) as model:
        found = model.predict(image[0])
    best = wanted[0, :, wanted[0, 4:].max(axis=0).argmax()]
    (x, y, w, h), scores = best[:4], best[4:]
    box = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, [SIZE[1], SIZE[0]] * 2)
    assert found[0][0] == str(scores.argmax())
    assert found[0][1] == pytest.approx(float(scores.max()), abs=1e-4)
    np.testing.assert_allclose(found[0][2], box, atol=0.05)


@pytest.mark.parametrize("target", further(("onnx", "openvino"), usual=("onnx",)))
def test_int8_of_a_file_of_others_keeps_boxes_and_scores(file, target, tmp_path):
    require(target, execution=True)
    manifest = exported(file, target, "int8", tmp_path).manifest

    assert manifest.verdict == "passed", manifest.failed_because
    assert {one.name for one in manifest.fidelity.outputs} == {"scores", "boxes"}

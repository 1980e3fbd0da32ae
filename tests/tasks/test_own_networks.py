"""A network of one's own for each task: INT8 is judged by what the task decides; the manifest says how to read it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.errors import DataError, UsageError
from tests.conftest import require
from tests.further import further

SIZE, CLASSES, BINS = 64, 3, 8


class Body(nn.Sequential):
    def __init__(self, stride=8):
        layers, wide = [], 3
        for few in (16, 24, 32)[: stride.bit_length() - 1]:
            layers += [nn.Conv2d(wide, few, 3, 2, 1, bias=False), nn.BatchNorm2d(few), nn.ReLU(inplace=True)]
            wide = few
        super().__init__(*layers)


class Detector(nn.Module):
    """A head as NanoDet has it: one convolution, class logits and four distances of eight bins each."""

    def __init__(self):
        super().__init__()
        self.body, self.head = Body(), nn.Conv2d(32, CLASSES + 4 * BINS, 1)
        with torch.no_grad():
            self.head.weight[:CLASSES] *= 8

    def forward(self, x):
        return self.head(self.body(x)).flatten(2).permute(0, 2, 1)


class Points(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.last = Body(), nn.Linear(32, 10)

    def forward(self, x):
        return (self.last(self.body(x).mean((2, 3))).sigmoid() * SIZE).view(-1, 5, 2)


class Vectors(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.last = Body(), nn.Linear(32, 24)

    def forward(self, x):
        return nn.functional.normalize(self.last(self.body(x).mean((2, 3))))


class Masks(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.last = Body(4), nn.Conv2d(24, CLASSES, 1)

    def forward(self, x):
        return self.last(self.body(x))


TASKS = {
    "detect": (Detector, {"decode": "gfl:strides=8,eval.score=0.3,predict.score=0.5"}, "head", "boxes"),
    "landmarks": (Points, {}, "points", "points"),
    "embed": (Vectors, {}, "embedding", "pairs"),
    "segment": (Masks, {}, "mask_logits", "pixels"),
}


def made(kind):
    torch.manual_seed(0)
    network = kind()
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(16, 3, SIZE, SIZE) * 4 - 2)
    return network.eval()


def images(count=128, seed=0):
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def exported(network, target, out, precision="int8", **changes):
    kind, options, *_ = TASKS[network]
    return gd.export(
        made(kind),
        **{
            "target": target,
            "task": network,
            "precision": precision,
            "calibration": images(),
            "preprocess": {"size": SIZE},
            "out": out,
            **options,
            **changes,
        },
    )


@pytest.mark.parametrize("target", further(("onnx", "openvino", "tflite"), usual=("onnx",)))
@pytest.mark.parametrize("task", TASKS)
def test_int8_keeps_what_the_task_decides(task, target, tmp_path):
    require(target)
    manifest = exported(task, target, tmp_path).manifest
    *_, role, decision = TASKS[task]

    assert (manifest.task.name, [one.role for one in manifest.outputs]) == (task, [role])
    found = manifest.fidelity
    assert found is not None
    assert (found.verdict, found.decision, found.decided > 0) == ("passed", decision, True)
    assert found.agreement_ci95[0] >= 0.95
    assert all(one.sqnr_db is None or one.sqnr_db >= 20 for one in found.outputs)


def test_the_record_of_a_head_is_completed_and_written_down(tmp_path):
    record = exported("detect", "onnx", tmp_path, precision="fp32").manifest.task.decode

    assert (record["kind"], record["classes"], record["reg_max"], record["strides"]) == ("gfl", CLASSES, 7, [8])
    assert (record["outputs"], record["layout"], record["scores"]) == (["logits"], "npc", "logits")


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        ("gfl:strides=8/16", "has 64 points, expected"),
        ("gfl:strides=8,scores=probabilities", "so they are logits and not probabilities"),
        ("yolov8:strides=8,state=raw,layout=npc,scores=logits,classes=3", "output 'logits' has 35 columns"),
    ],
)
def test_a_record_of_another_head_is_refused_with_the_fact(decode, words, tmp_path):
    with pytest.raises(DataError) as caught:
        exported("detect", "onnx", tmp_path, precision="fp32", decode=decode)

    assert words in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("detect", {"decode": None}, "how boxes come out of the outputs is not said"),
        ("detect", {"decode": "glf"}, "decode kind is 'glf'"),
        ("embed", {"decode": "gfl"}, "--decode has no effect on task embed"),
        ("segment", {"task": "embed"}, "task embed takes one vector per image"),
        ("embed", {"task": "segment"}, "task segment takes logits (N, K, h, w)"),
        ("segment", {"task": "landmarks"}, "points have shape"),
    ],
)
def test_a_task_that_does_not_fit_is_refused_before_anything_is_calibrated(task, changes, words, tmp_path):
    with pytest.raises(UsageError) as caught:
        exported(task, "onnx", tmp_path, **changes)

    assert words in caught.value.message

"""What a payload gives is what its manifest says and what PyTorch gave, also where it gives no float32.

One network of all kinds of outputs goes to every target in every precision. Whatever it leaves as ONNX must be valid.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy import samples, targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import CheckpointError
from ghostdeploy.models.source import load_model
from ghostdeploy.nvidia.driver import gpus
from tests.conftest import require
from tests.shared import shared_folder

SIZE = 32
FLOATS = ("native", "ncnn")
"""Targets that know floats alone: neither classes nor masks, see their own tests."""
ROWS = [row for row in targets.TARGETS.values() if row.name not in FLOATS]
PRECISIONS = [(row.name, precision) for row in ROWS for precision in row.precisions]


class Kinds(nn.Module):
    """Scores, a gate that waits for memory, and what people make of them and of maps: classes, a mask, one number."""

    def __init__(self, first):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.maps = nn.Conv2d(8, 4, 1)
        self.wide, self.scores = nn.Linear(8, 600), nn.Linear(600, 10)
        self.first = first

    def forward(self, x):
        x = self.body(x)
        maps = self.maps(x)
        if self.first == "classes":
            return maps.argmax(1)
        scores = self.scores(torch.relu(self.wide(x.mean((2, 3)))))
        return {
            "scores": scores,
            "classes": maps.argmax(1),
            "narrow": maps.argmax(1, keepdim=True).int(),
            "mask": maps[:, :1] > maps[:, 1:2],
            "best": scores.argmax(1),
            "peak": scores.amax(1),
        }


def kinds():
    torch.manual_seed(0)
    return Kinds("scores").eval()


def classes():
    torch.manual_seed(0)
    return Kinds("classes").eval()


def exported(factory, function, target, precision):
    with shared_folder(factory, "kinds") as root:
        path = root / f"{function}-{target}-{precision}"
        if not path.exists():
            rows = [row.name for row in ROWS if precision in row.precisions]
            config = ExportConfig(
                targets=tuple(rows) if function == "kinds" else (target,),
                precision=precision,
                calibration=None if precision in ("fp32", "fp16") else samples.calibration_set(),
                preprocess={"size": SIZE},
                out=root,
            )
            run_export(lambda: PyTorchModel(load_model(f"{__file__}:{function}")), config, name=function)
    return path


@pytest.fixture(params=PRECISIONS, ids="-".join)
def path(request, tmp_path_factory):
    require(request.param[0])
    return exported(tmp_path_factory, "kinds", *request.param)


@pytest.mark.slow
def test_the_manifest_says_what_the_payload_gives_and_it_is_what_pytorch_gave(path):
    bundle = open_bundle(path)
    outputs = {spec.name: spec for spec in bundle.manifest.outputs}

    assert list(outputs) == ["scores", "classes", "narrow", "mask", "best", "peak"]
    assert outputs["scores"].dtype == "float32"
    assert outputs["classes"].dtype == ("int32" if bundle.manifest.target == "tflite" else "int64")
    assert (outputs["narrow"].dtype, outputs["mask"].dtype) == ("int32", "bool")
    assert outputs["narrow"].shape == outputs["mask"].shape == (1, 1, SIZE // 2, SIZE // 2)
    assert (outputs["peak"].dtype, outputs["peak"].shape, outputs["best"].shape) == ("float32", (1,), (1,))
    inputs, golden = bundle.golden()
    assert {name: array.dtype.name for name, array in golden.items()} == {n: s.dtype for n, s in outputs.items()}
    if targets.find(bundle.manifest.target).device is not None and not gpus():
        return
    with gd.load(path) as model:  # it refuses a payload of other types than the manifest's
        found = model.infer(inputs)
    assert {name: array.dtype.name for name, array in found.items()} == {n: s.dtype for n, s in outputs.items()}
    if bundle.manifest.precision == "fp32":
        for name in ("classes", "narrow", "mask", "best"):
            np.testing.assert_array_equal(found[name], golden[name])
        assert bundle.manifest.verdict == "passed"


@pytest.mark.slow
def test_every_onnx_file_passes_the_checker_in_full(path):
    files = sorted(path.rglob("*.onnx"))

    assert bool(files) == (targets.find(open_bundle(path).manifest.target).name in ("onnx", "tensorrt"))
    for file in files:
        model = onnx.load(file)
        onnx.checker.check_model(model, full_check=True)
        assert not [one for one in model.metadata_props if one.key.startswith("onnxsim")]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.complex64, "sparse"])
def test_an_output_that_is_no_array_of_numbers_is_named(kind, tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            scores = self.conv(x).mean((2, 3))
            return {"scores": scores, "odd": scores.to_sparse() if kind == "sparse" else scores.to(kind)}

    with pytest.raises(CheckpointError, match=r"the model's output odd is a?.*(bfloat16|complex64|sparse)") as caught:
        gd.export(Odd().eval(), target="onnx", preprocess={"size": SIZE}, out=tmp_path)

    assert caught.value.hint


@pytest.mark.slow
def test_a_class_map_alone_goes_to_tflite(tmp_path_factory):
    require("tflite")
    path = exported(tmp_path_factory, "classes", "tflite", "fp32")

    bundle = open_bundle(path)
    _, golden = bundle.golden()
    assert (bundle.manifest.verdict, bundle.manifest.outputs[0].dtype) == ("passed", "int32")
    assert golden["logits"].dtype == np.int32
    assert golden["logits"].max() > 0
    assert gd.verify(path).verdict == "passed"


def test_masks_and_integers_have_no_range_to_equalize_or_to_tie():
    from ghostdeploy.deploy.fold.passes.value_ranges import channel_ranges
    from ghostdeploy.deploy.quantize.shared_scales import shared_ranges

    program = torch.export.export(kinds(), (torch.zeros(1, 3, SIZE, SIZE),))

    found = channel_ranges(program.module(), [torch.ones(1, 3, SIZE, SIZE)])

    assert {"conv2d", "conv2d_1", "linear"} <= found.keys()
    assert not any(name.startswith(("gt", "argmax")) for name in found)
    assert shared_ranges([("moved", "moved too"), ()], {}, "absolute", symmetric=False) == {}


def test_masks_that_differ_have_a_relative_error():
    from ghostdeploy.deploy.fold.passes.precision import relative_error

    assert relative_error([torch.tensor([True, False])], [torch.tensor([True, True])]) == 1

"""The gate of `hybrid`: cosine on golden vectors, and the share of real images that keep their first class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.export.verdict import agree
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.prove import parity
from ghostdeploy.models.source import from_module
from tests.exported import sample_bundle
from tests.further import further


def agreement(same, count, **options):
    """Judges `count` images of which `same` keep their first class."""
    reference = np.eye(10)[np.arange(count) % 10]
    logits = reference.copy()
    logits[same:] = np.roll(logits[same:], 1, axis=1)
    return agree(logits, reference, source="tests", required=0.99, **options)


@pytest.mark.parametrize(("same", "verdict"), [(1000, "passed"), (990, "passed"), (989, "failed")])
def test_the_share_itself_decides(same, verdict):
    assert agreement(same, 1000, certain=False).verdict == verdict


def test_a_bound_asks_for_more_images_where_the_share_does_not():
    assert agreement(100, 100, certain=True).verdict == "unverified"
    assert agreement(100, 100, certain=False).verdict == "passed"


def test_logits_that_are_not_finite_fail():
    reference = np.eye(10)
    logits = reference.copy()
    logits[3, 4] = np.nan

    assert agree(logits, reference, source="tests", required=0.99, certain=False).verdict == "failed"


@pytest.mark.parametrize(("noise", "verdict"), [(0.02, "passed"), (0.06, "failed")])
def test_golden_vectors_are_held_to_a_cosine_of_0_999(noise, verdict):
    rng = np.random.default_rng(0)
    clear = 10 * np.eye(10)[np.arange(16) % 10]  # the first class is never in doubt
    wanted = (rng.normal(size=(16, 10)) + clear).astype(np.float32)
    error = rng.normal(size=wanted.shape)
    error *= noise * np.linalg.norm(wanted) / np.linalg.norm(error)

    found = parity.compare({"logits": wanted + error}, {"logits": wanted}, "hybrid")

    assert found.verdict == verdict
    assert (found.cosine >= 0.999) == (verdict == "passed")


@pytest.mark.slow
@pytest.mark.parametrize("name", further(["ghostnet_050", "g_ghost_regnetx_002"], usual=["ghostnet_050"]))
def test_the_trained_samples_pass_it_on_a_thousand_images(name, tmp_path_factory):
    manifest = open_bundle(sample_bundle(tmp_path_factory, name, "tflite", precision="hybrid")).manifest

    assert (manifest.verdict, manifest.parity.verdict, manifest.agreement.verdict) == ("passed",) * 3
    assert manifest.parity.cosine >= 0.999
    assert manifest.agreement.count == 1000
    assert manifest.agreement.top1 >= manifest.agreement.required == 0.99
    assert manifest.quantization.calibration is None
    assert "memory-bound layers" in manifest.quantization.scheme
    assert manifest.accuracy.drop <= 0.01


@pytest.mark.slow
def test_a_module_of_ones_own_needs_no_images(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(network, nn.Linear(16, 300), nn.ReLU(), nn.Linear(300, 10)).eval()

    bundle = gd.export(
        network,
        target="tflite",
        precision="hybrid",
        name="own",
        out=tmp_path,
        preprocess={"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"},
    )

    manifest = bundle.manifest
    assert (manifest.verdict, manifest.parity.verdict, manifest.agreement) == ("passed", "passed", None)
    assert (manifest.precision_achieved.int8_layers, manifest.precision_achieved.float_layers) == (
        1,
        2,
    )  # 16 · 300 weights save time, 300 · 10 do not


@pytest.mark.slow
def test_hybrid_that_changes_nothing_says_so(tmp_path, caplog):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    bundle = gd.export(
        network.eval(),
        target="onnx",
        precision="hybrid",
        out=tmp_path,
        preprocess={"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"},
    )

    assert bundle.manifest.precision_achieved.int8_layers == 0
    assert "onnx: no layer is memory-bound here, so hybrid is fp32" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "waits"), [(3, False), (300, True)])
def test_a_float_export_counts_the_layers_that_hybrid_would_change(tmp_path, monkeypatch, classes, waits):
    monkeypatch.setattr("ghostdeploy.deploy.export.pipeline.cpu_flags", lambda: frozenset({"avx2", "fma"}))
    head = nn.Conv2d(16, classes, 1)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), head, nn.Flatten())
    config = ExportConfig(targets=("onnx", "openvino", "tflite"), out=tmp_path, preprocess={"size": 16})

    exported = run_export(lambda: PyTorchModel(from_module(network.eval())), config, name="waits")

    assert (exported.advice is not None) == waits
    assert not waits or "--hybrid is recommended for onnx, openvino, tflite" in exported.advice

"""fp16 bundles say how far their values stay inside float16, and are refused where these leave it."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.fold import half_range
from ghostdeploy.deploy.fold.passes.value_ranges import watch_graph
from ghostdeploy.deploy.intake.onnx.value_ranges import watch_model
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.images import from_arrays
from ghostdeploy.preprocess import Preprocess
from tests.commands import run as invoke
from tests.dead_channels import colourful

TARGETS = ("openvino", "tensorrt", "tflite")
SPEC = Preprocess(size=16, crop_fraction=1.0, interpolation="bilinear")
IMAGES = from_arrays(colourful(), source="colourful images")


class Loud(nn.Module):
    """A classifier whose results in `middle` reach about `results`, by weights up to about `weights`.

    What stands around `middle` is not linear, so no rewrite moves the size to other layers.
    """

    def __init__(self, *, results: float = 1.0, weights: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish())
        self.quiet = results / weights
        self.middle = nn.Sequential(nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.Hardswish())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        with torch.no_grad():
            self.middle[1].weight.mul_(4 * weights)
            self.head[2].weight.mul_(8 / results)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.stem(x) * self.quiet))


def export(module, tmp_path, **options):
    """Returns the manifests in fp16 by target."""
    config = ExportConfig(
        targets=options.pop("targets", TARGETS),
        precision="fp16",
        out=tmp_path,
        calibration=colourful(),
        preprocess={"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"},
        **options,
    )
    found = run_export(resolve_model(module, config), config, name="net")
    return {bundle.manifest.target: bundle.manifest for bundle in found.bundles}


@pytest.mark.slow
def test_a_bundle_says_what_it_was_proven_for(tmp_path, capsys):
    found = export(Loud(results=1000), tmp_path)

    assert {target: manifest.verdict for target, manifest in found.items()} == {
        "openvino": "passed",
        "tensorrt": "unverified",
        "tflite": "passed",
    }
    for target, manifest in found.items():
        seen = manifest.half_range
        assert judge.fault(seen, "fp16") is None
        assert (seen.images, seen.source) == (64, "the calibration array")
        assert seen.where == "conv2d of middle.1", target
        assert 500 < seen.largest < 65504
        assert seen.headroom == pytest.approx(65504 / seen.largest)
        assert (seen.weight is None) == (target == "tensorrt")
    shown = invoke(capsys, "inspect", tmp_path / "net-openvino-fp16").out
    assert "conv2d of middle.1" in " ".join(shown.split())


@pytest.mark.slow
def test_results_beyond_float16_are_refused_though_this_processor_gives_them_right(tmp_path):
    for target, manifest in export(Loud(results=65504), tmp_path, targets=("tensorrt", "tflite")).items():
        assert manifest.parity.verdict == "passed", target  # float32 arithmetic
        assert manifest.verdict == "failed"
        assert "conv2d of middle.1 reaches" in manifest.failed_because
        assert "on 64 images of the calibration array" in manifest.failed_because
        assert "float16 ends at 65504" in manifest.failed_because


@pytest.mark.slow
def test_weights_beyond_float16_are_refused_where_the_payload_cuts_them(tmp_path):
    found = export(Loud(results=16, weights=2.0**17), tmp_path, targets=("openvino", "tensorrt"))

    assert found["openvino"].verdict == "failed"
    assert "weight of middle.1 holds" in found["openvino"].failed_because
    assert found["tensorrt"].verdict == "unverified"
    assert "fp32 kept where weights do not fit" in found["tensorrt"].precision_achieved.how


def test_other_precisions_say_nothing(tiny_bundle):
    assert open_bundle(tiny_bundle("openvino")).manifest.half_range is None


def graph_of(results: float):
    from ghostdeploy.deploy.fold.fold import fold

    return fold(Loud(results=results), torch.zeros(2, 3, 16, 16), dynamic_batch=True)[0]


@pytest.mark.parametrize("batch", [None, 1, 3, 100])
def test_every_image_counts_whatever_the_batch(batch):
    graph = graph_of(10)
    parts = list(half_range.full_batches(IMAGES, SPEC, batch))
    watch = half_range.Watch()

    watch_graph(graph, lambda: parts, watch)

    whole = half_range.Watch()
    watch_graph(graph, lambda: [np.concatenate(list(IMAGES.batches(SPEC)))], whole)
    assert {len(part) for part in parts} == ({16} if batch is None else {batch})
    assert watch.record(IMAGES).largest == pytest.approx(whole.record(IMAGES).largest, rel=1e-5)


def write_onnx(path):
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        torch.onnx.export(Loud(results=7e5), torch.zeros(1, 3, 16, 16), path, dynamo=True, verbose=False)


def test_an_onnx_file_is_watched_like_a_graph(tmp_path):
    write_onnx(tmp_path / "net.onnx")
    batches = list(half_range.full_batches(IMAGES, SPEC, 1))
    ours, theirs = half_range.Watch(), half_range.Watch()
    watch_model(onnx.load(tmp_path / "net.onnx"), lambda: batches, theirs)
    watch_graph(graph_of(7e5), lambda: batches, ours)

    assert theirs.record(IMAGES).largest == pytest.approx(ours.record(IMAGES).largest, rel=1e-4)
    assert "onv" in judge.fault(theirs.record(IMAGES), "fp16")


def test_an_onnx_file_that_leaves_float16_exits_1(tmp_path, capsys):
    write_onnx(tmp_path / "net.onnx")
    words = ["export", tmp_path / "net.onnx", "-t", "openvino", "--fp16", "-o", tmp_path, "--image-size", "16"]

    answer = invoke(capsys, *words)

    assert answer.code == 1
    assert "float16 ends at 65504" in answer.out


def test_what_rounds_to_nothing_is_counted_and_infinity_is_not_an_overflow():
    watch = half_range.Watch()

    watch.constant(np.array([2.0**-25, -(2.0**-24), 0, 1, np.inf, np.nan], np.float32), "w of a")
    watch.result(65519.0, "add of a")

    found = watch.record(IMAGES)
    assert (found.vanishing, found.weight, judge.fault(found, "fp16")) == (1, 1.0, None)
    assert np.isfinite(np.float16(65519.0))
    watch.result(65520.0, "add of b")
    assert "add of b reaches" in judge.fault(watch.record(IMAGES), "fp16")
    with np.errstate(over="ignore"):
        assert np.isinf(np.float16(65520.0))


def test_a_mask_of_infinities_leaves_the_finite_values():
    class Masked(nn.Module):
        def forward(self, x):
            return torch.softmax(x.flatten(1).masked_fill(x.flatten(1) > 0, -torch.inf), 1)

    from ghostdeploy.deploy.fold.capture import capture

    watch = half_range.Watch()
    watch_graph(capture(Masked(), torch.zeros(2, 1, 2, 2)), lambda: [-np.full((2, 1, 2, 2), 9, np.float32)], watch)

    assert watch.record(IMAGES).largest == 9

"""`bench --against default`: the default export of the bundle's own model, and of no other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ghostdeploy import samples, targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.default_route.comparison import float_images, name_model
from ghostdeploy.deploy.default_route.model import Named
from ghostdeploy.deploy.default_route.route import DefaultRoute
from ghostdeploy.errors import ExportFailed, UsageError
from ghostdeploy.preprocess import Preprocess, as_input
from ghostdeploy.runtimes import load
from tests.commands import assert_one_sentence, run
from tests.conftest import require
from tests.exported import sample_bundle

SPEC = Preprocess(size=32)

ROUTES = [row.name for row in targets.TARGETS.values() if row.default_route is not None]
FACTORY = """
from torch import nn

def tiny(num_classes=7):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )

def unsupported():
    class Sorting(nn.Module):
        def forward(self, x):
            return x.flatten(1).cummax(1).values[:, :7]

    return Sorting()

def unprepared():
    class Sorted(nn.Module):
        def forward(self, x):
            return x.flatten(1).topk(7, -1).values

    return Sorted()
"""


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    path = tmp_path_factory.mktemp("factory") / "tiny.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return sample_bundle(tmp_path_factory, "ghostnet_050", "openvino", precision="fp32")


@pytest.mark.parametrize("target", ROUTES)
def test_each_default_route_gives_a_bundle_that_its_runtime_runs(target, factory, tmp_path):
    require(target)
    route = DefaultRoute(Named(spec=f"{factory}:tiny"), preprocess=SPEC)

    bundle = route.export(target, tmp_path, batch=2)

    assert bundle.manifest.verdict == "passed"
    assert bundle.manifest.passes == ()
    assert bundle.manifest.inputs[0].shape == (2, 3, 32, 32)
    assert [path.name for path in tmp_path.iterdir()] == [f"tiny-{target}-default"]
    inputs, golden = bundle.golden()
    with load(bundle.path, threads=1) as runtime:
        given = next(iter(runtime.infer(inputs).values()))
    np.testing.assert_allclose(given, next(iter(golden.values())), atol=2e-3)


def test_a_converter_that_fails_leaves_its_log_and_no_bundle(factory, tmp_path):
    require("tflite")

    with pytest.raises(ExportFailed, match="the default tflite converter failed"):
        DefaultRoute(Named(spec=f"{factory}:unsupported"), preprocess=SPEC).export("tflite", tmp_path)

    assert [path.suffix for path in tmp_path.iterdir()] == [".log"]


def test_an_engine_that_refuses_what_was_just_exported_is_told_without_the_folder_of_the_moment(factory, tmp_path):
    require("tflite")

    with pytest.raises(ExportFailed, match="the tflite payload is unusable") as caught:
        DefaultRoute(Named(spec=f"{factory}:unprepared"), preprocess=SPEC).export("tflite", tmp_path)

    assert "unprepared-tflite-default" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".log"])


def test_a_target_without_a_default_route_says_which_have_one(factory, tmp_path):
    with pytest.raises(UsageError, match="tensorrt has no default route") as caught:
        DefaultRoute(Named(spec=f"{factory}:tiny"), preprocess=SPEC).export("tensorrt", tmp_path)

    assert "onnx, openvino, tflite" in caught.value.hint


def test_the_ratio_is_to_the_default_export_of_the_same_model(path, capsys):
    document = run(capsys, "bench", path, "--against", "default", "--rounds", "8", "--json").document

    default, ours = document["bundles"]
    assert default["name"] == ours["baseline"] == default["baseline"] == "ghostnet_050-openvino-default"
    assert (default["ratio"], ours["name"]) == (1.0, "ghostnet_050-openvino-fp32")
    assert ours["ratio_ci95"][0] <= ours["ratio"] <= ours["ratio_ci95"][1]
    macs = json.loads((path / "manifest.json").read_text())["model"]["macs"]
    assert default["limit"]["macs"] == macs < ours["limit"]["macs"]  # DepthwiseConcat multiplies more and copies less


def test_another_model_is_refused(path, capsys):
    answer = run(capsys, "bench", path, "--against", "default", "--model", "ghostnet_050")

    assert_one_sentence(answer, 3, "is not the model of", "--weights FILE")


def test_a_model_with_other_outputs_is_refused(path, factory, capsys):
    answer = run(capsys, "bench", path, "--against", "default", "--model", f"{factory}:tiny")

    assert_one_sentence(answer, 3, "has outputs (16, 7)", "(16, 10)")


def test_another_checkpoint_is_refused_by_its_hash(path, capsys):
    other = samples.checkpoint("g_ghost_regnetx_002")

    answer = run(capsys, "bench", path, "--against", "default", "--weights", other)

    assert_one_sentence(answer, 3, "was made from weights with SHA-256")


def test_an_absent_checkpoint_is_named(path, tmp_path, capsys):
    answer = run(capsys, "bench", path, "--against", "default", "--weights", tmp_path / "none.pth")

    assert_one_sentence(answer, 3, "none.pth cannot be read")


def test_a_bundle_that_does_not_name_its_model_asks_for_it(tiny_bundle, capsys):
    answer = run(capsys, "bench", tiny_bundle("onnx"), "--against", "default")

    assert_one_sentence(answer, 2, "cannot be loaded from the manifest", "--model MODEL")


@pytest.mark.parametrize("option", ["--model", "--weights"])
def test_a_model_says_nothing_without_against(tiny_bundle, capsys, option):
    assert_one_sentence(run(capsys, "bench", tiny_bundle("onnx"), option, "x"), 2, "--against default")


def test_the_model_is_built_again_by_its_own_name(path):
    bundle = open_bundle(path)

    assert name_model(bundle, None, None) == Named(spec="sample:ghostnet_050")
    assert name_model(bundle, "ghostnet_050", None) == Named(spec="ghostnet_050", num_classes=10)
    assert name_model(bundle, "a.b:c", None) == Named(spec="a.b:c")
    assert name_model(bundle, None, samples.checkpoint()).weights == str(samples.checkpoint())


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_golden_inputs_of_every_kind_become_what_the_module_takes(layout, dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    plain = as_input(pixels, Preprocess(size=8))
    spec = Preprocess(size=8, layout=layout, dtype=dtype)

    np.testing.assert_array_equal(float_images(as_input(pixels, spec), spec), plain)

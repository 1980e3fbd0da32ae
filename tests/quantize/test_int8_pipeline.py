"""The INT8 line on the shipped trained models: several targets from one command, proven, explained, small.

`make test` exports each network for the processors it was made for, C-Ghost for CPUs and G-Ghost for GPUs, and
`make test-all` adds the other pairs.
"""

from __future__ import annotations

import re
import shutil

import pytest

import ghostdeploy as gd
from ghostdeploy import samples, targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.models.source import load_model
from ghostdeploy.nvidia.driver import gpus
from tests.badly_scaled import badly_scaled
from tests.commands import run
from tests.conftest import require
from tests.exported import EVERYWHERE, INT8, USUAL_INT8, int8_bundle

pytestmark = pytest.mark.slow

MODELS = tuple(USUAL_INT8)


def pairs(wanted):
    """Parameters (model, target); `make test-all` has them all."""
    every = [(name, target) for name in MODELS for target in wanted]
    marks = {one: () if one[1] in USUAL_INT8[one[0]] else pytest.mark.full for one in every}
    return [pytest.param(one, marks=marks[one], id="-".join(one)) for one in every]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function: model, target → folder of its INT8 bundle."""

    def path(name, target):
        require(target)
        return int8_bundle(tmp_path_factory, name, target)

    return path


@pytest.fixture(params=pairs(INT8))
def path(request, exported):
    """An INT8 bundle for every target."""
    return exported(*request.param)


@pytest.fixture(params=pairs(EVERYWHERE))
def runs_here(request, exported):
    """An INT8 bundle whose engine runs on every machine."""
    return exported(*request.param)


def test_at_most_one_point_of_accuracy_is_lost_and_the_decisions_stay(path):
    manifest = open_bundle(path).manifest

    assert manifest.accuracy.verdict == manifest.agreement.verdict == manifest.parity.verdict == "passed"
    assert manifest.accuracy.count == manifest.agreement.count == 1000
    assert manifest.accuracy.drop <= 0.01
    assert manifest.agreement.top1_ci95[0] >= manifest.agreement.required == 0.95
    assert manifest.failed_because is None


def test_what_was_executed_is_passed_and_what_was_not_says_so(path):
    manifest = open_bundle(path).manifest

    executed = targets.find(manifest.target).device is None or bool(gpus())
    if executed:
        assert (manifest.verdict, manifest.unverified_because) == ("passed", None)
        assert manifest.execution.verdict == "passed"
    else:
        assert manifest.verdict == "unverified"
        assert manifest.unverified_because.startswith("built, not executed")
        assert manifest.execution is None
    how = "executed" if executed else "simulated in float"
    assert {manifest.parity.how, manifest.agreement.how, manifest.accuracy.how} == {how}


def test_nearly_all_the_work_is_done_in_int8_and_layers_left_in_float_are_named_as_in_pytorch(path):
    manifest = open_bundle(path).manifest
    modules = dict(gd.create_model(manifest.model.name, num_classes=10).named_modules())

    assert manifest.precision_achieved.int8_mac_share >= 0.8
    assert {*manifest.quantization.float_layers, *manifest.quantization.float_by_rule} <= modules.keys()
    assert manifest.quantization.calibration.count > 100
    assert len(manifest.quantization.calibration.sha256) == 64


@pytest.mark.parametrize("name", [MODELS[0], pytest.param(MODELS[1], marks=pytest.mark.full)])
def test_the_same_images_calibrate_every_target(name, exported):
    records = {open_bundle(exported(name, target)).manifest.quantization.calibration for target in EVERYWHERE}

    assert len(records) == 1


def test_fold_and_conditioning_are_certified(path):
    passes = open_bundle(path).manifest.passes

    assert all(one.max_relative_error <= 1e-9 for one in passes)
    assert sum(one.sites for one in passes if "atch" in one.name) > 40


def test_the_diagnosis_names_pytorch_modules_worst_first(path, capsys):
    modules = dict(gd.create_model(open_bundle(path).manifest.model.name, num_classes=10).named_modules())

    found = run(capsys, "diagnose", path, "--json").document
    shown = run(capsys, "diagnose", path, "--top", "3")

    decibels = [layer["sqnr_db"] for layer in found["layers"] if layer["sqnr_db"] is not None]
    assert {layer["module"] for layer in found["layers"]} <= modules.keys()
    assert decibels == sorted(decibels)
    assert shown.code == 0
    assert [layer["module"] in shown.out for layer in found["layers"][:4]] == [True, True, True, False]


def test_verify_measures_the_execution_gap_on_this_machine(runs_here, capsys):
    answer = run(capsys, "verify", runs_here)
    found = gd.verify(runs_here)

    assert answer.code == 0
    assert found.execution.isa in answer.out
    assert found.execution.isa == open_bundle(runs_here).manifest.execution.isa


def test_the_payload_is_much_smaller_than_the_float_weights(runs_here):
    bundle = open_bundle(runs_here)

    # A quarter are the weights; an OpenVINO graph of a hundred small layers is a megabyte of text besides.
    assert bundle.size < 0.65 * 4 * bundle.manifest.model.params


def test_the_bundle_classifies_the_shipped_images(runs_here):
    with gd.load(runs_here) as runtime:
        first = {image.stem: runtime.classify(image, k=1)[0][0] for image in samples.example_images()}

    right = [stem for stem, label in first.items() if re.sub(r"[^a-z]", "_", label.lower()) == stem]
    assert len(right) >= 8, first


def test_eval_finds_the_accuracy_that_the_manifest_records(runs_here, capsys):
    recorded = open_bundle(runs_here).manifest.accuracy

    found = run(capsys, "eval", runs_here, "--json").document[0]

    assert found["count"] == recorded.count
    assert found["top1"]["value"] == pytest.approx(recorded.top1, abs=1e-9)


def test_an_altered_diagnosis_is_refused(runs_here, tmp_path, capsys):
    copy = shutil.copytree(runs_here, tmp_path / "copy")
    (copy / "diagnosis.json").write_text("{}")

    assert run(capsys, "diagnose", copy).code == 3


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_a_badly_scaled_network_loses_less_than_a_point_of_agreement(name, tmp_path):
    """Default quantization loses more than ten points of it, see `test_equalize_ranges`."""
    model = load_model(f"sample:{name}")
    spec = {f: getattr(model.preprocess, f) for f in ("size", "crop_fraction", "interpolation", "mean", "std")}

    bundle = gd.export(
        badly_scaled(model.module, 4),
        target="openvino",
        precision="int8",
        name="scaled",
        out=tmp_path,
        preprocess=spec,
        calibration=samples.calibration_set(),
        data=samples.evaluation_set(),
    )

    assert bundle.manifest.agreement.count == 1000
    assert bundle.manifest.agreement.top1 > 0.99
    assert "EqualizeChannels" in {record.name for record in bundle.manifest.passes}

"""Where the reference has one column, or one class for every image, agreement of first classes proves nothing."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest
from onnx import numpy_helper

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.verdict import agree
from ghostdeploy.deploy.intake.inputs import Inputs
from ghostdeploy.deploy.prove import parity
from ghostdeploy.deploy.prove.execution import compare_execution
from ghostdeploy.deploy.prove.images import from_arrays
from ghostdeploy.deploy.prove.judge import conclude
from ghostdeploy.deploy.quantize.evidence import gather
from ghostdeploy.deploy.quantize.fallback import Gate
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.tasks.base import TaskInfo
from ghostdeploy.tasks.classify import Classify
from ghostdeploy.terminal import making_tables, tables
from tests import bundles
from tests.commands import run
from tests.runs import run_in

COUNT = 300


def logits(classes=5, *, bias=0.0):
    """Returns logits (N, classes); a bias makes class 3 the first of every image."""
    found = np.random.default_rng(0).normal(size=(COUNT, classes)).astype(np.float32)
    found[:, min(3, classes - 1)] += bias
    return found


TASK = Classify(TaskInfo(), (32, 32))
ONE_COLUMN, ONE_CLASS, MANY = logits(1), logits(bias=20), logits()


@pytest.mark.parametrize("certain", [True, False])
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda y: y, "passed"),
        (lambda y: y * 1.05, "passed"),
        (lambda y: y * 1.2, "failed"),
        (lambda y: y[::-1] * 0 + np.float32([0, 0, 0, 1, 0]), "failed"),
    ],
    ids=["itself", "near", "louder", "a constant"],
)
def test_a_reference_of_one_class_is_judged_by_its_values_as_well(change, verdict, certain):
    found = agree(change(ONE_CLASS), ONE_CLASS, source="tests", required=0.95, certain=certain)

    assert (found.verdict, found.required_sqnr_db, found.reference_class) == (verdict, 20, 3)
    assert (found.top1, found.top1_ci95) == (None, None)


def test_answers_that_leave_the_one_class_fail_however_near_they_are():
    reference = logits(bias=5) * 0 + np.float32([0, 9.9, 0, 10, 0])
    changed = reference.copy()
    changed[:60, 1] = 10.1

    found = agree(changed, reference, source="tests", required=0.95)

    assert (found.verdict, found.top1) == ("failed", 0.8)
    assert found.sqnr_db > 30


def test_too_few_images_of_one_class_stay_undecided(tmp_path):
    found = agree(ONE_CLASS[:32], ONE_CLASS[:32], source="tests", required=0.95)
    manifest = open_bundle(bundles.make_bundle(tmp_path, "onnx", precision="int8")).manifest

    assert found.verdict == "unverified"
    judged = conclude(msgspec.structs.replace(manifest, agreement=found, accuracy=None), None)
    assert "32 images leave the agreement between 89.3% and 100.0%" in judged.unverified_because


@pytest.mark.parametrize(("reference", "proves"), [(ONE_COLUMN, None), (ONE_CLASS, None), (MANY, 1.0)])
def test_parity_and_execution_gap_say_nothing_of_agreement_that_proves_nothing(reference, proves):
    gap = compare_execution(reference, reference, isa="AVX2")

    found = parity.compare({"logits": reference}, {"logits": reference}, "int8")
    assert (found.top1_agreement, found.agreement_proves) == (1, proves is not None)
    assert (gap.agreement, gap.verdict) == (proves, "passed")


def test_a_disagreement_with_one_class_is_told():
    reference = ONE_CLASS[:10]
    changed = reference.copy()
    changed[0] = changed[0][::-1]

    found = parity.compare({"logits": changed}, {"logits": reference}, "int8")
    assert (found.top1_agreement, found.agreement_proves) == (0.9, True)
    assert compare_execution(changed, reference, isa="AVX2").agreement == 0.9


def test_the_quantizer_goes_on_until_the_values_are_near():
    reference = {"logits": ONE_CLASS}
    values_judge = TASK.values_judge(reference)
    judge = Gate(TASK, reference, None, 0.95, required_db=20, values_judge=values_judge, max_drop=0.01)

    assert judge.holds({"logits": ONE_CLASS * 1.05})
    assert not judge.holds({"logits": ONE_CLASS * 1.2})


class Constant:
    """A reference that gives class 1 for every image."""

    input_name = "input"

    def outputs(self, batch):
        return {"logits": self.logits(batch)}

    def logits(self, batch):
        return batch.mean((2, 3)) + np.float32([0, 100, 0])


def test_export_and_tune_say_that_the_float_model_gives_one_class(tmp_path, caplog):
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), np.uint8)
    photos = from_arrays(images, source="photos")
    spec = Preprocess(size=16, crop_fraction=1.0, interpolation="bilinear")

    with caplog.at_level(logging.WARNING):
        inputs, golden = Inputs(photos.sample(16), None, photos), {"logits": np.zeros((1, 3), np.float32)}
        gather(inputs, spec, Constant(), run_in(tmp_path, precision="int8"), TASK, golden)

    assert "the float model gives class 1 for all 100 images of photos" in caplog.text


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Returns an INT8 bundle whose golden outputs are class 3 throughout."""
    plain = bundles.network

    def biased(tiny):
        model = plain(tiny)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
        values = numpy_helper.to_array(bias).copy()
        values[3] += 100
        bias.CopyFrom(numpy_helper.from_array(values, "bias"))
        return model

    monkeypatch.setattr(bundles, "network", biased)
    return bundles.make_bundle(tmp_path, "onnx", precision="int8")


def test_verify_shows_a_dash_and_says_why(path, capsys):
    answer = run(capsys, "verify", path)
    found = run(capsys, "verify", path, "--json").document[0]

    assert answer.code == 0
    assert "100" not in answer.out
    assert "–" in answer.out
    assert "never name different classes" in answer.out
    assert (found["parity"]["top1_agreement"], found["parity"]["agreement_proves"]) == (1, False)
    assert found["execution"]["agreement"] is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [(ONE_COLUMN, "one output column has no top-1 class"), (ONE_CLASS, "gives class 3 for every image")],
)
def test_inspect_says_what_was_judged(reference, words, tmp_path):
    manifest = open_bundle(bundles.make_bundle(tmp_path, "onnx", precision="int8")).manifest
    found = agree(reference, reference, source="tests", required=0.95)
    rows = dict(tables._quantized(msgspec.structs.replace(manifest, agreement=found)))

    assert words in rows["agreement"]
    assert "20 dB needed" in rows["agreement"]
    assert making_tables.agreed(found) == "exact"

"""What is no answer passes nowhere: logits that are not finite, and drops that too few images leave open."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.writing import describe_file
from ghostdeploy.deploy.export.verdict import agree, gate
from ghostdeploy.deploy.measure.bench import bench
from ghostdeploy.deploy.prove import parity, streaming
from ghostdeploy.deploy.prove.class_order import fit_classes
from ghostdeploy.deploy.prove.evaluate import Predictions, best_five, compare
from ghostdeploy.deploy.prove.fidelity import agreement
from ghostdeploy.deploy.prove.images import ImageSet
from ghostdeploy.deploy.prove.judge import conclude, failures
from ghostdeploy.deploy.quantize.fallback import Gate
from ghostdeploy.errors import BundleError, DataError
from ghostdeploy.tasks.base import TaskInfo
from ghostdeploy.tasks.classify import Classify
from tests.bundles import CLASSES, Tiny, make_bundle, network
from tests.commands import run
from tests.signing import sealed

TASK = Classify(TaskInfo(), (32, 32))
LABELS = np.zeros(200, np.int64)  # all images are of class 0: what NaN's argmax says


def _logits(count=200):
    return np.tile(np.eye(10)[0], (count, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("broken", [1, 200])
def test_an_image_without_finite_logits_has_no_class(value, broken):
    logits = _logits()
    logits[:broken, 7] = value

    found = Predictions.of(logits, LABELS)

    assert found.non_finite == broken
    assert found.top1_share == found.top5_share == 1 - broken / 200
    assert (best_five(logits)[:broken] == -1).all()
    assert gate(found, Predictions.of(_logits(), LABELS), 1.0).verdict == "failed"


def test_two_models_without_classes_do_not_agree():
    nothing = Predictions.of(np.full((200, 10), np.nan), LABELS)

    assert compare(nothing, nothing, "itself").agreement.value == 0
    assert parity.agreement(np.full((4, 3), np.nan), np.full((4, 3), np.nan)) == 0
    assert agreement(TASK, {"logits": np.full((4, 3), np.nan)}, {"logits": np.eye(4, 3)}) == 0
    found = agree(np.full((200, 10), np.nan), _logits(), source="tests", required=0.95)
    assert (found.top1, found.non_finite, found.verdict) == (0.0, 200, "failed")


def test_the_quantizer_keeps_no_candidate_that_gives_nan():
    judge = Gate(TASK, {"logits": _logits()}, LABELS, 0.95, required_db=20, values_judge=False, max_drop=0.01)
    broken = _logits()
    broken[:, 3] = np.nan

    assert judge.holds({"logits": _logits()})
    assert not judge.holds({"logits": broken})


class _Nan:
    """A runtime that gives NaN for every image."""

    def __init__(self, runtime):
        self._runtime = runtime

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._runtime.close()

    def __call__(self, batch):
        return np.full_like(self._runtime(batch), np.nan)

    def submit(self, batch):
        future = self._runtime.submit(batch)
        future.result()[:] = np.nan
        return future


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("tiny"), "onnx", tiny=Tiny(batch=None))


@pytest.fixture
def data(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), np.uint8)
    labels = np.repeat([0, 0, 0, 1], 6)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    return tmp_path / "data.npz"


def test_eval_of_an_engine_that_gives_nan_fails_and_counts(path, data, monkeypatch, capsys):
    real = streaming.load
    monkeypatch.setattr(streaming, "load", lambda path, **options: _Nan(real(path, **options)))

    answer = run(capsys, "eval", path, "--data", data, "--json")
    found = answer.document[0]

    assert answer.code == 1
    assert (found["top1"]["value"], found["non_finite"], found["verdict"]) == (0.0, 24, "failed")
    answer = run(capsys, "eval", path, "--data", data)
    assert answer.code == 1
    assert "logits of 24 of 24 images are NaN or infinite" in answer.out


def _judged(count, *, lost=0, max_drop=0.01):
    """Returns the accuracy record of a model that loses `lost` of `count` images."""
    labels = np.zeros(count, np.int64)
    ours = _logits(count)
    ours[:lost] = np.roll(ours[:lost], 1, axis=1)
    return gate(Predictions.of(ours, labels), Predictions.of(_logits(count), labels), max_drop)


@pytest.mark.parametrize(
    ("count", "lost", "verdict"),
    [(1000, 0, "passed"), (200, 0, "passed"), (100, 0, "unverified"), (1000, 9, "unverified"), (1000, 11, "failed")],
)
def test_a_drop_passes_only_when_its_whole_interval_does(path, count, lost, verdict):
    accuracy = _judged(count, lost=lost)
    sound = {"logits": np.eye(CLASSES)}
    manifest = msgspec.structs.replace(
        open_bundle(path).manifest, parity=parity.compare(sound, sound, "fp32"), accuracy=accuracy
    )

    found = conclude(manifest, None)

    assert accuracy.verdict == found.verdict == verdict
    assert (found.unverified_because is not None) is (verdict == "unverified")
    if verdict == "unverified":
        assert f"not enough images to decide: {count} labelled images" in found.unverified_because
        assert not accuracy.decided
        assert conclude(manifest, "built, not executed").unverified_because == "built, not executed"


def test_the_count_of_images_without_classes_is_the_reason_that_is_given(path):
    accuracy = msgspec.structs.replace(_judged(200), non_finite=3, verdict="failed")
    manifest = msgspec.structs.replace(open_bundle(path).manifest, accuracy=accuracy)

    assert failures(manifest) == ["logits of 3 of 200 images are NaN or infinite"]


def test_bench_refuses_an_engine_that_gives_nan(tmp_path):
    path = make_bundle(tmp_path, "onnx")
    model = network(Tiny())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(CLASSES, np.nan, np.float32), "bias"))
    onnx.save(model, path / "model.onnx")
    manifest = json.loads((path / bundles.MANIFEST).read_text())
    manifest["files"] = [msgspec.to_builtins(describe_file(path, one["path"])) for one in manifest["files"]]
    (path / bundles.MANIFEST).write_text(sealed(manifest))

    with pytest.raises(BundleError, match="gives NaN or infinity in logits"):
        bench([path], rounds=8)


@pytest.mark.parametrize("certain", [True, False])
@pytest.mark.parametrize(
    ("change", "verdict"),
    [(lambda y: y, "passed"), (lambda y: y * 1.01, "passed"), (lambda y: -y, "failed"), (lambda y: y * 0, "failed")],
)
def test_one_column_has_no_first_class_and_is_judged_by_its_values(change, verdict, certain):
    logits = np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32)

    found = agree(change(logits), logits, source="tests", required=0.95, certain=certain)

    assert (found.verdict, found.required_sqnr_db) == (verdict, 20)


@pytest.mark.parametrize("labels", [[0] * 8, [0, 1] * 4])
def test_labelled_images_measure_no_top1_of_one_column(labels):
    images = ImageSet("set", [None] * 8, np.array(labels), None)

    with pytest.raises(DataError, match="one output column") as caught:
        fit_classes(images, ["yes"])

    assert "torch.cat" in caught.value.hint

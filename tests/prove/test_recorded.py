"""What an export missed stays missed: no later command says better of a bundle than its own manifest."""

from __future__ import annotations

import logging
import shutil

import msgspec
import numpy as np
import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy.bundle.folder import MANIFEST, open_bundle
from ghostdeploy.bundle.manifest import Accuracy, Agreement, encode
from tests.commands import run

DROP = "top-1 drops by 100.00 points, 1.00 allowed"


@pytest.fixture
def recorded(tiny_bundle, tmp_path):
    """Makes a copy of a sound bundle whose manifest says something else."""

    def make(**changes):
        copy = shutil.copytree(tiny_bundle("onnx"), tmp_path / "copy", dirs_exist_ok=True)
        manifest = msgspec.structs.replace(open_bundle(copy).manifest, **changes)
        (copy / MANIFEST).write_bytes(encode(manifest))
        return copy

    return make


def accuracy(verdict):
    return Accuracy(
        top1=0.0,
        top5=0.0,
        count=12,
        reference_top1=1.0,
        drop=1.0,
        drop_ci95=(0.7, 1.0),
        max_drop=0.01,
        verdict=verdict,
    )


def agreement(verdict):
    return Agreement(
        source="data", count=12, top1=1.0, top1_ci95=(0.75, 1.0), sqnr_db=40.0, required=0.95, verdict=verdict
    )


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"verdict": "failed", "unverified_because": None, "failed_because": DROP}, DROP),
        ({"verdict": "failed", "unverified_because": None}, "marks the bundle as failed"),
        ({"verdict": "passed", "failed_because": DROP}, DROP),
        ({"verdict": "passed", "accuracy": accuracy("failed")}, "accuracy"),
        ({"verdict": "passed", "agreement": agreement("failed")}, "agreement"),
    ],
)
def test_verify_never_passes_what_the_export_failed(recorded, capsys, changes, because):
    path = recorded(**changes)

    answer, document = run(capsys, "verify", path), run(capsys, "verify", path, "--json").document[0]

    assert answer.code == 1
    assert " ".join(because.split()) in " ".join(answer.out.split())
    assert document["verdict"] == "failed"
    assert because in document["failed_because"]
    assert document["export_verdict"] == changes["verdict"]
    assert document["parity"]["verdict"] == "passed"


@pytest.mark.parametrize(
    "changes",
    [{"accuracy": accuracy("unverified")}, {"agreement": agreement("unverified")}],
    ids=lambda one: next(iter(one)),
)
def test_what_too_few_images_left_open_stays_open(recorded, capsys, changes):
    few = "not enough images to decide: 12 images"
    path = recorded(verdict="unverified", unverified_because=few, **changes)

    answer = run(capsys, "verify", path, "--json")

    assert answer.code == 0
    found = answer.document[0]
    assert (found["verdict"], found["failed_because"], found["export_verdict"]) == ("unverified", None, "unverified")
    assert few in found["unverified_because"]


def test_a_bundle_that_only_waited_for_its_engine_is_decided_by_it(recorded):
    path = recorded(verdict="unverified", unverified_because="built, not executed: no GPU")

    assert gd.verify(path).verdict == "passed"


@pytest.mark.parametrize(("claimed", "layers"), [("int8", 0), ("fp32", 3)])
def test_a_claimed_precision_that_was_not_read_back_fails(recorded, claimed, layers):
    achieved = open_bundle(recorded()).manifest.precision_achieved
    path = recorded(precision=claimed, precision_achieved=msgspec.structs.replace(achieved, int8_layers=layers))

    found = gd.verify(path)

    assert found.verdict == "failed"
    assert f"claims {claimed}, its payload has {layers} INT8 layers by read-back" in found.failed_because


def test_whoever_runs_a_failed_bundle_is_told(recorded, tmp_path, capsys, caplog):
    path = recorded(verdict="failed", unverified_because=None, failed_because=DROP)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 20, 20, 3), np.uint8) + 9, labels=np.arange(4))

    answers = [
        run(capsys, "run", path, tmp_path / "a.png"),
        run(capsys, "eval", path, "--data", tmp_path / "a.npz"),
        run(capsys, "bench", path, "--rounds", 8),
    ]

    for answer in answers:
        assert answer.code == 0
        assert [line for line in answer.err.splitlines() if DROP in line] == [
            f"warning: {path} failed a gate of its export: {DROP}"
        ]
    with caplog.at_level(logging.WARNING, "ghostdeploy"), gd.load(path):
        assert DROP in caplog.text


def test_nobody_is_told_of_a_bundle_that_passed(recorded, caplog):
    with gd.load(recorded(verdict="passed", unverified_because=None)):
        assert caplog.text == ""

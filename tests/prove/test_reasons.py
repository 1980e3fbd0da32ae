"""What is said of a record that missed its gate: the figure never looks like the one that was expected."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ghostdeploy.bundle.fidelity import Fidelity, OutputFidelity
from ghostdeploy.deploy.prove import judge, reasons
from ghostdeploy.deploy.prove.fidelity import measure
from ghostdeploy.tasks.base import TaskInfo
from ghostdeploy.tasks.detect.record import Boxes
from ghostdeploy.tasks.detect.task import Detect


@pytest.mark.parametrize(
    ("ratio", "words"), [(19.9948, "19.9 dB"), (19.9, "19.9 dB"), (-0.01, "-0.1 dB"), (-math.inf, "-inf dB")]
)
def test_a_ratio_just_below_what_is_expected_is_rounded_down(ratio, words):
    found = Fidelity(
        source="here",
        count=10,
        outputs=(OutputFidelity(name="boxes", max_abs=0.1, cosine=0.99, sqnr_db=ratio),),
        required_sqnr_db=20.0,
        decision="boxes",
        decided=0,
        agreement=None,
        agreement_ci95=None,
        required_agreement=None,
        verdict="failed",
    )

    assert f"boxes is {words} from the float model's, expected 20 dB" in reasons.unfaithful(found)


def test_where_the_float_model_finds_nothing_nothing_is_proven():
    record = Boxes(outputs=("boxes", "scores"), classes=2)
    task = Detect(TaskInfo(name="detect", decode=record), (32, 32))
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 32, (4, 5, 2, 2)), axis=2).reshape(4, 5, 4).astype(np.float32)
    silent, heard = (np.full((4, 5, 2), score, np.float32) for score in (0.01, 0.6))

    def found(scores):
        reference = {"boxes": boxes, "scores": scores}
        return measure(task, reference, reference, source="here", required_db=20, required_agreement=None)

    assert found(heard).verdict == "passed"
    assert found(silent).verdict == "unverified"
    assert judge.doubt(found(silent)) == "the float model finds no boxes on 4 images, and so nothing was compared"

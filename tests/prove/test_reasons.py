"""What is said of a record that missed its gate: the figure never looks like the one that was expected."""

from __future__ import annotations

import math

import pytest

from ghostdeploy.bundle.fidelity import Fidelity, OutputFidelity
from ghostdeploy.deploy.prove import reasons


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

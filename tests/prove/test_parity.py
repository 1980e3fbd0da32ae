"""Parity judges outputs by the tolerance table and says what would have passed."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.deploy.prove.parity import agreement, compare
from ghostdeploy.deploy.prove.tolerance import TOLERANCES
from ghostdeploy.errors import BundleError

REFERENCE = np.random.default_rng(0).standard_normal((8, 10)).astype(np.float32)


def judge(outputs, precision="fp32"):
    return compare({"logits": outputs}, {"logits": REFERENCE}, precision)


def test_equal_outputs_pass_without_an_error():
    found = judge(REFERENCE.copy())

    assert (found.verdict, found.max_abs, found.cosine, found.sqnr_db) == ("passed", 0.0, 1.0, None)


@pytest.mark.parametrize(("relative", "verdict"), [(0.9e-4, "passed"), (1.1e-4, "failed")])
def test_fp32_is_judged_by_the_largest_error_over_the_largest_output(relative, verdict):
    outputs = REFERENCE.astype(np.float64)
    outputs[3, 4] += relative * np.abs(REFERENCE).max()

    found = judge(outputs)

    assert found.verdict == verdict
    assert found.would_pass.max_abs_relative == pytest.approx(relative, rel=1e-6)


def test_the_tolerance_that_would_have_passed_passes():
    outputs = REFERENCE + 0.01 * np.random.default_rng(1).standard_normal(REFERENCE.shape)

    found = judge(outputs)

    assert found.verdict == "failed"
    assert found.max_abs <= found.would_pass.max_abs_relative * found.reference_max_abs * (1 + 1e-12)


def test_sqnr_is_ten_log_ten_of_the_power_ratio():
    found = judge(REFERENCE * np.float64(1.1))

    assert found.sqnr_db == pytest.approx(20.0, abs=1e-6)


def test_nan_outputs_fail():
    outputs = REFERENCE.copy()
    outputs[0, 0] = np.nan

    assert judge(outputs).verdict == "failed"


def test_fp16_forgives_a_changed_class_only_inside_its_own_step():
    reference = np.array([[1.0, 1.0005], [1.0, 1.1]])
    swapped = reference[:, ::-1]

    assert agreement(swapped, reference, precision="fp16") == 0.5
    assert agreement(swapped, reference) == 0.0


def test_int8_is_judged_on_real_images_and_not_by_single_outputs():
    noisy = REFERENCE + 0.05 * np.random.default_rng(1).standard_normal(REFERENCE.shape)

    found = judge(noisy, "int8")

    assert judge(noisy).verdict == "failed"
    assert found.verdict == "passed"
    bounds = found.tolerance
    assert (bounds.max_abs_relative, bounds.cosine, bounds.top1_agreement) == (None, None, None)
    assert bounds.agreement_ci95_low == 0.95


@pytest.mark.parametrize("precision", TOLERANCES)
def test_outputs_that_are_not_finite_fail_in_every_precision(precision):
    for value in (np.nan, np.inf):
        outputs = REFERENCE.copy()
        outputs[0, 0] = value

        assert judge(outputs, precision).verdict == "failed"


def test_another_shape_than_the_golden_one_is_a_damaged_bundle():
    with pytest.raises(BundleError, match=r"\(8, 9\)"):
        judge(REFERENCE[:, :9])


def test_every_row_of_the_table_says_why():
    assert all(len(row.why) > 40 for row in TOLERANCES.values())

"""Parity: the artefact's outputs against the golden ones, judged by the tolerance table.

    max_abs          max |y − r| over all images and outputs
    relative         max_abs / max |r|
    cosine           min over images of  y·r / (‖y‖ ‖r‖)
    SQNR             10 log10( Σ r² / Σ (y − r)² )  in decibel
    top1_agreement   share of images with argmax y = argmax r; for fp16 only images whose reference margin
                     (best − second) exceeds the half-precision step of the largest logit can disagree

All in float64, all on the very arrays stored in the bundle, so the judgement is the same on every machine. Needs NumPy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.tolerance import FP16_STEP, TOLERANCES
from ghostdeploy.errors import BundleError
from ghostdeploy.manifest import Parity, Tolerance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle import Arrays

    Float = NDArray[np.float64]


def compare(outputs: Arrays, golden: Arrays, precision: str) -> Parity:
    """Compares outputs with golden ones.

    Args:
        outputs: What the artefact gave, keyed by tensor name, first dimension the image.
        golden: What the unfolded float32 PyTorch model gave.
        precision: Row of the tolerance table.

    Raises:
        BundleError: A golden array has another shape than the output.
    """
    for name, reference in golden.items():
        if outputs[name].shape != reference.shape:
            raise BundleError(f"output {name} has shape {outputs[name].shape}, its golden array {reference.shape}")
    pairs = [(np.asarray(outputs[n], np.float64), np.asarray(golden[n], np.float64)) for n in golden]
    count = len(pairs[0][1])
    rows = [(got.reshape(count, -1), reference.reshape(count, -1)) for got, reference in pairs]
    finite = all(np.isfinite(got).all() for got, _ in rows)
    max_abs = max(float(np.abs(got - reference).max()) for got, reference in rows) if finite else math.inf
    scale = max(float(np.abs(reference).max()) for _, reference in rows)
    measured = Tolerance(
        why="measured",
        max_abs_relative=max_abs / scale if scale else max_abs,
        cosine=min(min_cosine(got, reference) for got, reference in rows) if finite else -1.0,
        top1_agreement=agreement(*rows[0], precision=precision) if finite else 0.0,
    )
    tolerance = TOLERANCES[precision]
    return Parity(
        count=count,
        max_abs=max_abs if finite else 1e308,
        reference_max_abs=scale,
        cosine=measured.cosine or 0.0,
        sqnr_db=sqnr_db(rows) if finite else -999.0,
        top1_agreement=measured.top1_agreement or 0.0,
        tolerance=tolerance,
        would_pass=_tightest(measured, tolerance),
        verdict="passed" if finite and passes(measured, tolerance) else "failed",
    )


def passes(measured: Tolerance, tolerance: Tolerance) -> bool:
    """Tells whether every bound that the row sets is met."""
    bounds = (
        (tolerance.max_abs_relative, -1.0, measured.max_abs_relative),
        (tolerance.cosine, 1.0, measured.cosine),
        (tolerance.top1_agreement, 1.0, measured.top1_agreement),
    )
    return all(value is not None and sign * value >= sign * bound for bound, sign, value in bounds if bound is not None)


def min_cosine(got: Float, reference: Float) -> float:
    """Returns the smallest cosine similarity over images; two zero vectors are equal."""
    dots = np.einsum("ij,ij->i", got, reference)
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(reference, axis=1)
    same = (got == reference).all(axis=1)
    return float(np.where(same, 1.0, dots / np.where(norms == 0, np.inf, norms)).min())


def sqnr_db(rows: list[tuple[Float, Float]]) -> float | None:
    """Returns the signal-to-error ratio in decibel over all outputs, None when there is no error."""
    signal = sum(float(np.square(reference).sum()) for _, reference in rows)
    noise = sum(float(np.square(got - reference).sum()) for got, reference in rows)
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise) if signal else -math.inf


def agreement(got: Float, reference: Float, *, precision: str = "fp32") -> float:
    """Returns the share of images with the same first class; fp16 forgives margins below its own step."""
    same = got.argmax(axis=1) == reference.argmax(axis=1)
    if precision == "fp16" and reference.shape[1] > 1:
        best = np.partition(reference, -2, axis=1)[:, -2:]
        same |= (best[:, 1] - best[:, 0]) <= FP16_STEP * np.abs(reference).max(axis=1)
    return float(same.mean())


def _tightest(measured: Tolerance, tolerance: Tolerance) -> Tolerance:
    """Returns the measured values in the columns that the row judges."""
    return Tolerance(
        why="the tightest bounds these outputs meet",
        max_abs_relative=measured.max_abs_relative if tolerance.max_abs_relative is not None else None,
        cosine=measured.cosine if tolerance.cosine is not None else None,
        top1_agreement=measured.top1_agreement if tolerance.top1_agreement is not None else None,
    )

"""Parity: the artefact's outputs compared with the golden ones.

    max_abs          max |y − r| over all images
    relative         max_abs / max |r|
    cosine           min over images of  y·r / (‖y‖ ‖r‖)
    norm error       max over images of  |‖y‖ − ‖r‖| / ‖r‖
    SQNR             10 log10( Σ r² / Σ (y − r)² )  in decibels
    top1_agreement   share of images with argmax y = argmax r; for fp16 only images whose reference margin
                     (best − second) exceeds the half-precision step of the largest logit can disagree

Agreement proves nothing where the reference has one column or one class for every image: see `names_classes`.

Each of an output by itself, so that a large one cannot hide a small one, and the worst output is judged, by a row of
`tolerance`; the agreement is that of the first output. The cosine of an image ignores its magnitude, so its norm
has a separate bound.

All in float64, all on the arrays stored in the bundle, so the verdict is the same on every machine. Needs NumPy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ghostdeploy.bundle.manifest import OutputParity, Parity, Tolerance
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.tolerance import FP16_STEP, TOLERANCES, relative_error
from ghostdeploy.errors import BundleError
from ghostdeploy.tasks.classify import names_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import Manifest

    Float = NDArray[np.float64]

NOTHING_DB, EXACT_DB, _FAR = -999.0, 999.0, 1e308
"""Stand for infinities, which JSON does not have."""
_LEAST = 1e-300
"""Stands for a power of 0 in a logarithm."""
_SMALL_NORM = 0.01
"""Share of an output's largest norm below which an image's own norm is no scale: a single number near zero has none."""


def compare(outputs: Arrays, golden: Arrays, precision: str) -> Parity:
    """Compares outputs with golden ones.

    Args:
        outputs: What the artefact gave, keyed by tensor name, first dimension the image.
        golden: What the unfolded float32 PyTorch model gave.
        precision: Row of the tolerance table.

    Raises:
        BundleError: A golden array has another shape than the output.
    """
    rows = {name: as_rows(outputs[name], golden[name], name) for name in golden}
    parts = {name: worst_part(outputs[name], golden[name]) for name in golden}
    found = tuple(
        msgspec.structs.replace(_one(name, got, reference), part_sqnr_db=None if part is None else part[1])
        for (name, (got, reference)), part in zip(rows.items(), parts.values(), strict=True)
    )
    broken = np.any([~np.isfinite(got).all(axis=1) for got, _ in rows.values()], axis=0)
    first = next(iter(rows.values()))
    worst = max(found, key=relative_error)
    measured = Tolerance(
        why="the tightest bounds these outputs meet",
        max_abs_relative=relative_error(worst),
        cosine=min(one.cosine for one in found),
        norm_error=max(one.norm_error for one in found),
        sqnr_db=min(EXACT_DB if one.sqnr_db is None else one.sqnr_db for one in found),
        top1_agreement=0.0 if broken.any() else agreement(*first, precision=precision),
    )
    tolerance, agreed = TOLERANCES[precision], measured.top1_agreement or 0.0
    return Parity(
        count=len(broken),
        max_abs=worst.max_abs,
        reference_max_abs=worst.reference_max_abs,
        cosine=measured.cosine or 0.0,
        sqnr_db=None if measured.sqnr_db == EXACT_DB else measured.sqnr_db,
        top1_agreement=agreed,
        agreement_proves=agreed < 1 or names_classes(first[1]),
        tolerance=tolerance,
        would_pass=_tightest(measured, tolerance),
        verdict=judge.parity_verdict(measured, tolerance, int(broken.sum())),
        outputs=found,
        non_finite=int(broken.sum()),
    )


def again(outputs: Arrays, golden: Arrays, manifest: Manifest) -> Parity:
    """Compares the outputs of a bundle that was proven before; what its export knew of the reference stays."""
    known = None if manifest.parity is None else manifest.parity.reference_error
    return msgspec.structs.replace(compare(outputs, golden, manifest.precision), reference_error=known)


def as_rows(output: NDArray[np.generic], golden: NDArray[np.generic], name: str) -> tuple[Float, Float]:
    """Returns both as float64 (images, numbers).

    Raises:
        BundleError: They differ in shape.
    """
    if output.shape != golden.shape:
        raise BundleError(f"output {name} has shape {output.shape}, its golden array {golden.shape}")
    got, reference = (np.asarray(array, np.float64).reshape(len(golden), -1) for array in (output, golden))
    return got, reference


def _one(name: str, got: Float, reference: Float) -> OutputParity:
    """Measures one output."""
    scale = float(np.abs(reference).max())
    if not np.isfinite(got).all():
        return OutputParity(
            name=name,
            max_abs=_FAR,
            reference_max_abs=scale,
            cosine=-1.0,
            norm_error=_FAR,
            sqnr_db=NOTHING_DB,
        )
    sqnr = sqnr_db([(got, reference)])
    return OutputParity(
        name=name,
        max_abs=float(np.abs(got - reference).max()),
        reference_max_abs=scale,
        cosine=min_cosine(got, reference),
        norm_error=max_norm_error(got, reference),
        sqnr_db=None if sqnr is None else max(sqnr, NOTHING_DB),
    )


def worst_part(output: NDArray[np.generic], golden: NDArray[np.generic]) -> tuple[str, float] | None:
    """Returns the channel, or the place on the last axis, that is furthest off, and its SQNR in decibels.

    Args:
        output: (N, channels, …).
        golden: Of the same shape.

    Returns:
        Such as ("[:, 4]", 31.5), 999 decibel for no error at all; None for vectors (N, numbers), whose numbers are
        judged together, and for NaN and infinity.
    """
    got, wanted, found = np.asarray(output, np.float64), np.asarray(golden, np.float64), []
    if golden.ndim < 3 or not np.isfinite(got).all():
        return None
    error = got - wanted
    for axis, index in ((1, "[:, {}]"), (golden.ndim - 1, "[..., {}]")):
        others = tuple(other for other in range(golden.ndim) if other != axis)
        signal, noise = (np.square(array).sum(axis=others) for array in (wanted, error))
        decibel = 10 * (np.log10(np.maximum(signal, _LEAST)) - np.log10(np.maximum(noise, _LEAST)))
        decibel[noise == 0] = EXACT_DB
        place = int(decibel.argmin())
        found.append((index.format(place), float(decibel[place])))
    return min(found, key=lambda one: one[1])


def min_cosine(got: Float, reference: Float) -> float:
    """Returns the smallest cosine similarity over images; two zero vectors are equal."""
    with np.errstate(all="ignore"):
        dots = np.einsum("ij,ij->i", got, reference)
        norms = np.linalg.norm(got, axis=1) * np.linalg.norm(reference, axis=1)
        same = (got == reference).all(axis=1)
        return float(np.where(same, 1.0, dots / np.where(norms == 0, np.inf, norms)).min())


def max_norm_error(got: Float, reference: Float) -> float:
    """Returns the largest relative error of an image's norm; norms near zero are measured by the largest one."""
    with np.errstate(all="ignore"):
        ours, wanted = np.linalg.norm(got, axis=1), np.linalg.norm(reference, axis=1)
        scale = np.maximum(wanted, _SMALL_NORM * wanted.max())
        return float((np.abs(ours - wanted) / np.where(scale == 0, 1.0, scale)).max())


def sqnr_db(rows: list[tuple[Float, Float]]) -> float | None:
    """Returns the signal-to-error ratio in decibels over all outputs, None when there is no error."""
    with np.errstate(all="ignore"):
        signal = sum(float(np.square(reference).sum()) for _, reference in rows)
        noise = sum(float(np.square(got - reference).sum()) for got, reference in rows)
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise) if signal else -math.inf


def agreement(got: Float, reference: Float, *, precision: str = "fp32") -> float:
    """Returns the share of images with the same top-1 class; fp16 forgives margins below its own step."""
    finite = np.isfinite(got).all(axis=1)  # of NaN the first is the largest, whatever the others are
    same = got.argmax(axis=1) == reference.argmax(axis=1)
    if precision == "fp16" and reference.shape[1] > 1:
        best = np.partition(reference, -2, axis=1)[:, -2:]
        same |= (best[:, 1] - best[:, 0]) <= FP16_STEP * np.abs(reference).max(axis=1)
    return float((same & finite).mean())


def _tightest(measured: Tolerance, tolerance: Tolerance) -> Tolerance:
    """Returns the measured values in the columns that the row judges."""
    judged = [name for name in judge.BOUNDS if getattr(tolerance, name) is not None]
    return Tolerance(why=measured.why, **{name: getattr(measured, name) for name in judged})

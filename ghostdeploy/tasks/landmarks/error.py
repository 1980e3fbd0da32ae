"""Normalised mean error of points.

With K points p of a model, true points g, and the length d of the true points that the record names:

    error of an image   e = (1/K) Σ_k ‖p_k − g_k‖ / d
    NME                 mean of e over images
    failure rate at t   share of images with e > t
    AUC up to t         (1/t) ∫₀ᵗ F(x) dx, F(x) the share of images with e ≤ x, which is mean of max(0, 1 − e/t)

The last is exact: the integral of a staircase needs no steps. An image whose d is zero has no error; it is left out and
counted. Two models agree on a point when they put it within 0.02·d of each other, d of the float model's points.

Sources: NME and failure rate as in 300-W and WFLW (t = 0.1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy.tasks.agreement import Agreement, agreement
from ghostdeploy.tasks.bootstrap import ROUNDS, paired_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float = NDArray[np.float64]

FAILURE = 0.1
NEAR = 0.02
"""Share of the normaliser within which two models' points are the same."""


class Errors(NamedTuple):
    """What each image adds to the figures; NaN where its length is zero."""

    normalised: Float
    """(N,) Mean distance of the points, in shares of d."""
    pixels: Float
    """(N,) The same in pixels."""


class PointError(NamedTuple):
    """Figures of a set; NaN where no image counts."""

    nme: float
    failure_rate: float
    auc: float
    pixels: float
    """Mean distance in pixels."""
    images: int
    """Images that count."""
    left_out: int
    """Images without a length."""


def errors(found: Float, true: Float, length: Float) -> Errors:
    """Returns the error of each image.

    Args:
        found: (N, K, 2) in pixels of the original image.
        true: (N, K, 2)
        length: (N,) See `lengths`.
    """
    off = np.linalg.norm(found - true, axis=2).mean(axis=1)
    known = length > 0
    normalised = np.divide(off, length, out=np.full(len(off), np.nan), where=known)
    return Errors(normalised, np.where(known, off, np.nan))


def merge(parts: Sequence[Errors]) -> Errors:
    """Returns the errors of a set from those of its parts."""
    return Errors(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def point_error(found: Errors, weights: NDArray[np.integer[Any]] | None = None) -> PointError:
    """Returns the figures.

    Args:
        found: Errors of each image.
        weights: (N,) How often each image is counted; None is once.
    """
    known = np.isfinite(found.normalised)
    weights = np.ones(len(known), np.int64) if weights is None else weights
    weight = weights[known]
    total = int(weight.sum())
    left_out = int(weights[~known].sum())
    if not total:
        return PointError(math.nan, math.nan, math.nan, math.nan, 0, left_out)
    share, pixels = found.normalised[known], found.pixels[known]
    under = np.maximum(0.0, 1.0 - share / FAILURE)
    nme, failures, auc, off = (float(values @ weight) / total for values in (share, share > FAILURE, under, pixels))
    return PointError(nme, failures, auc, off, total, left_out)


def rise_interval(found: Errors, reference: Errors, *, rounds: int = ROUNDS, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of the relative rise of the NME, found / reference − 1, on the same images.

    Args:
        found: One model's errors.
        reference: The float model's, of the same images.
        rounds: Draws.
        seed: Of the draws.
    """

    def rise(weights: NDArray[np.int64]) -> float:
        base = point_error(reference, weights).nme
        return point_error(found, weights).nme / base - 1 if base else math.nan

    return paired_interval(len(reference.normalised), rise, rounds=rounds, seed=seed)


def points_alike(found: Float, reference: Float, length: Float) -> Agreement:
    """Counts the points that both models put in one place.

    Args:
        found: (N, K, 2) One model's.
        reference: (N, K, 2) The float model's.
        length: (N,) Of the float model's points; where it is zero no distance but zero is near.
    """
    return agreement(np.linalg.norm(found - reference, axis=2) <= NEAR * length[:, None])

"""Mean intersection over union of masks, see `mask`.

Over all pixels of all images whose label is not 255, with n_lp pixels of label l that got class p:

    IoU_k = n_kk / (Σ_p n_kp + Σ_l n_lk − n_kk)       mIoU = mean over the classes whose denominator is not 0
    pixel accuracy = Σ_k n_kk / Σ n

Sums come first: the mean of the images' IoU is another number. Source: mmsegmentation's `iou_metric.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy.tasks.agreement import Agreement, agreement
from ghostdeploy.tasks.bootstrap import ROUNDS, paired_interval
from ghostdeploy.tasks.segment.mask import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    Float = NDArray[np.float64]
    Mask = NDArray[np.uint8]


class Areas(NamedTuple):
    """Pixels of each image and class, all that the figures need."""

    both: Int
    """(N, K) Labelled and found."""
    labelled: Int
    """(N, K)"""
    found: Int
    """(N, K) Where there is a label."""


class Overlap(NamedTuple):
    """Figures of a set; NaN where no pixel has a label."""

    miou: float
    pixel_accuracy: float
    by_class: Float
    """(K,) IoU; NaN of a class that is neither labelled nor found."""


def areas(found: Mask, label: Mask, classes: int) -> Areas:
    """Returns what one image adds to the figures.

    Args:
        found: (H, W) Class of each pixel.
        label: (H, W) The true one, 255 where there is none.
        classes: K; 2 for a single logit.
    """
    known = label != IGNORED
    pairs = label[known].astype(np.int64) * classes + found[known]
    confusion = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return Areas(*(one[None] for one in (np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))))


def merge(parts: Sequence[Areas]) -> Areas:
    """Returns the areas of a set from those of its images or parts."""
    return Areas(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def overlap(found: Areas, weights: NDArray[np.integer[Any]] | None = None) -> Overlap:
    """Returns the figures.

    Args:
        found: Areas of each image.
        weights: (N,) How often each image is counted; None is once.
    """
    weights = np.ones(len(found.both), np.int64) if weights is None else weights
    both, labelled, shown = (weights @ one for one in found)
    union = labelled + shown - both
    by_class = np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)
    if not labelled.sum():
        return Overlap(float("nan"), float("nan"), by_class)
    return Overlap(float(np.nanmean(by_class)), float(both.sum() / labelled.sum()), by_class)


def drop_interval(found: Areas, reference: Areas, *, rounds: int = ROUNDS, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of the drop of mIoU, reference minus found, on the same images.

    Args:
        found: One model's areas.
        reference: The float model's, of the same images.
        rounds: Draws.
        seed: Of the draws.
    """

    def drop(weights: NDArray[np.int64]) -> float:
        return overlap(reference, weights).miou - overlap(found, weights).miou

    return paired_interval(len(reference.both), drop, rounds=rounds, seed=seed)


def pixels_alike(found: Mask, reference: Mask) -> Agreement:
    """Counts the pixels that both models give one class; both masks are of one shape."""
    return agreement(found == reference)

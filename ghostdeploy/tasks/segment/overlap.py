"""Mean intersection over union, and the mask that it is of.

Logits (K, h, w) are resized to the label's H × W first and decided then. Bilinear, along each side of n logits and N
pixels, pixel i reads at

    x = (i + ½)·n/N − ½,  cut to 0 … n − 1          x = i·(n − 1)/(N − 1)  with `align_corners`

and takes ⌊x⌋ and its right neighbour in the shares of the rest. The mask is the class of the largest logit, of equal
ones the first; a single logit is class 1 where it is above 0.

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.tasks.segment.record import Segment

    Int = NDArray[np.int64]
    Float = NDArray[np.float64]
    Mask = NDArray[np.uint8]

IGNORED = 255
_CHUNK = 1 << 24
"""Resized logits that are in memory at once."""


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


def resize(logits: NDArray[Any], size: tuple[int, int], record: Segment) -> NDArray[np.float32]:
    """Returns logits (K, h, w) as (K, H, W), bilinear.

    Args:
        logits: Of one image.
        size: H and W.
        record: Where the corners are.
    """
    rows, columns = (places(*sides, record) for sides in zip(logits.shape[1:], size, strict=True))
    return sample(logits, rows, columns)


def sample(logits: NDArray[Any], rows: Float, columns: Float) -> NDArray[np.float32]:
    """Returns logits (K, h, w) read between their pixels, bilinear: (K, H, W).

    Args:
        logits: Of one image.
        rows: (H,) Where to read, 0 being the middle of the first row; what is outside is at the edge.
        columns: (W,)
    """
    out = np.asarray(logits, np.float32)
    for axis, where in ((1, rows), (2, columns)):
        inside = np.clip(where, 0, out.shape[axis] - 1)
        low = np.floor(inside).astype(np.int64)
        high = np.minimum(low + 1, out.shape[axis] - 1)
        weight = (inside - low).astype(np.float32).reshape((-1, 1) if axis == 1 else -1)
        first = np.take(out, low, axis)
        first += (np.take(out, high, axis) - first) * weight
        out = first
    return out


def places(have: int, want: int, record: Segment) -> Float:
    """Returns where each of `want` pixels reads, (want,), of `have` logits."""
    return places_of(np.arange(want, dtype=np.float64) + 0.5, have, want, record)


def places_of(where: Float, have: int, want: int, record: Segment) -> Float:
    """Returns where positions of a side of `want` pixels read, 0.5 being the middle of the first one."""
    if record.align_corners:
        return (where - 0.5) * ((have - 1) / max(want - 1, 1))
    return where * (have / want) - 0.5


def mask(logits: NDArray[Any], size: tuple[int, int], record: Segment) -> Mask:
    """Returns the class of each pixel, uint8 (H, W).

    Args:
        logits: (K, h, w) of one image.
        size: H and W of the label, or of the original image.
        record: How logits are resized.

    Raises:
        ValueError: The logits have another form, or more classes than a mask of 8 bits can name.
    """
    _require_logits(logits)
    return decide(logits, *(places(*sides, record) for sides in zip(logits.shape[1:], size, strict=True)))


def decide(logits: NDArray[Any], rows: Float, columns: Float) -> Mask:
    """Returns the class at each place, uint8 (H, W), see `sample`."""
    found = np.empty((len(rows), len(columns)), np.uint8)
    step = max(1, _CHUNK // (len(logits) * len(columns)))
    for top in range(0, len(rows), step):
        part = sample(logits, rows[top : top + step], columns)
        found[top : top + step] = part[0] > 0 if len(part) == 1 else part.argmax(axis=0)
    return found


def _require_logits(logits: NDArray[Any]) -> None:
    if logits.ndim != 3 or not 1 <= len(logits) <= IGNORED:
        raise ValueError(
            f"logits of an image have shape {logits.shape}, expected (K, h, w) with 1 to {IGNORED} classes"
        )


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

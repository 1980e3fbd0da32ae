"""Mean average precision as COCO defines it, all images matched at once.

Detections of one image and class form a group, best score first, 100 at most. In each group, for each IoU threshold t
and in the order of scores, a detection takes a free box g of the same image and class:

    the box that counts with the largest IoU ≥ t, of equal ones the last; else a crowd, which is never used up
    IoU = |d ∩ g| / |d ∪ g|;  of a crowd |d ∩ g| / |d|

Taken boxes that count are right answers, taken crowds are forgotten, and what takes nothing is wrong. Over all images
of a class, in the order of scores, with n boxes that count:

    recall_k = TP_k / n      precision_k = max over j ≥ k of TP_j / (TP_j + FP_j)
    AP(class, t) = mean over r = 0, 0.01, …, 1 of precision at the first k with recall_k ≥ r, 0 where there is none
    mAP = mean of AP over t = 0.50, 0.55, …, 0.95 and over the classes that have boxes

Groups do not touch each other, so the k-th detections of all groups are matched in one step: at most 100 steps for any
number of images. Source: `cocoeval.py` of github.com/cocodataset/cocoapi, whose figures are reproduced to six decimals.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Detections of one image and class that count."""
_NONE = -3.0
"""Below every key of a box that may be taken."""


class Boxes(NamedTuple):
    """Boxes of a whole set, one row each."""

    image: Int
    """Index of the image, (M,)."""
    label: Int
    """Index of the class, (M,)."""
    xywh: Float
    """(M, 4) left, top, width, height in pixels of the original image, as in COCO files."""


class Truth(NamedTuple):
    """Labelled boxes."""

    boxes: Boxes
    crowd: NDArray[np.bool_]
    """(M,) Groups of objects: they are not searched for, and what is found in them is not wrong."""


class Found(NamedTuple):
    """Detections."""

    boxes: Boxes
    scores: Float
    """(M,)"""


class Matches(NamedTuple):
    """What each detection turned out to be; with `precision` all that a figure or its interval needs."""

    image: Int
    """(D,) Sorted by class, then score."""
    label: Int
    right: NDArray[np.bool_]
    """(T, D) It took a box that counts."""
    forgotten: NDArray[np.bool_]
    """(T, D) It took a crowd."""
    scores: Float
    """(D,)"""
    wanted: Int
    """(images, classes) Boxes that count."""


class Precision(NamedTuple):
    """Average precision."""

    mean: float
    """Over thresholds 0.50 … 0.95; NaN where no class has a box."""
    half: float
    """At 0.50."""
    by_class: Float
    """(classes,) Over thresholds; NaN where the class has no box."""


def match(found: Found, truth: Truth, *, images: int, classes: int) -> Matches:
    """Matches detections with labelled boxes.

    Args:
        found: Detections.
        truth: Labelled boxes.
        images: Number of images; those without a box count too.
        classes: Number of classes.
    """
    counts = ~truth.crowd
    wanted = np.zeros((images, classes), np.int64)
    np.add.at(wanted, (truth.boxes.image[counts], truth.boxes.label[counts]), 1)

    found = _best(found, classes)
    order = np.lexsort((truth.crowd, truth.boxes.label, truth.boxes.image))  # in a group those that count come first
    boxes, crowd = truth.boxes.xywh[order], truth.crowd[order]
    keys = truth.boxes.image[order] * classes + truth.boxes.label[order]
    group = found.boxes.image * classes + found.boxes.label
    first, last = np.searchsorted(keys, group, "left"), np.searchsorted(keys, group, "right")

    right = np.zeros((len(THRESHOLDS), len(group)), bool)
    forgotten = np.zeros_like(right)
    taken = np.zeros((len(THRESHOLDS), len(keys)), bool)
    rank = _ranks(group)
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(rank.max(initial=-1) + 2))
    for low, high in itertools.pairwise(bounds):
        rows = by_rank[low:high]
        rows = rows[last[rows] > first[rows]]
        if len(rows):
            pairs = _pairs(rows, first, last)
            _take(pairs, found.boxes.xywh, boxes, crowd, taken, right, forgotten)
    return _by_class(Matches(found.boxes.image, found.boxes.label, right, forgotten, found.scores, wanted))


def merge(parts: Sequence[Matches]) -> Matches:
    """Returns the matches of a set from those of its parts, the images of one after those of the other."""
    starts = np.cumsum([0, *(len(one.wanted) for one in parts)])
    moved = [one._replace(image=one.image + start) for one, start in zip(parts, starts[:-1], strict=True)]
    *every, wanted = zip(*moved, strict=True)
    return _by_class(Matches._make([*(np.concatenate(one, axis=-1) for one in every), np.concatenate(wanted)]))


def _by_class(matches: Matches) -> Matches:
    """Returns matches sorted by class, then score; of equal scores the first image's comes first."""
    *every, wanted = matches
    order = np.lexsort((matches.image, -matches.scores, matches.label))
    return Matches._make([*(one[..., order] for one in every), wanted])


class _Pairs(NamedTuple):
    """Every (detection, box) of one step: the boxes of a detection stand in a row."""

    rows: Int
    """(R,) Detections."""
    start: Int
    """(R,) Where the boxes of each begin."""
    length: Int
    """(R,) How many it has."""
    box: Int
    """(P,) Index of the box."""


def _pairs(rows: Int, first: Int, last: Int) -> _Pairs:
    length = last[rows] - first[rows]
    start = np.concatenate(([0], np.cumsum(length)[:-1]))
    box = np.arange(length.sum()) + np.repeat(first[rows] - start, length)
    return _Pairs(rows, start, length, box)


def _take(
    pairs: _Pairs,
    detections: Float,
    boxes: Float,
    crowd: NDArray[np.bool_],
    taken: NDArray[np.bool_],
    right: NDArray[np.bool_],
    forgotten: NDArray[np.bool_],
) -> None:
    """Lets each detection of one step take its box, at every threshold."""
    is_crowd = crowd[pairs.box]
    iou = _overlap(np.repeat(detections[pairs.rows], pairs.length, axis=0), boxes[pairs.box], is_crowd)
    place = np.arange(len(pairs.box))
    for number, threshold in enumerate(THRESHOLDS):
        free = (iou >= min(threshold, 1 - 1e-10)) & (is_crowd | ~taken[number, pairs.box])
        key = np.where(free, iou - 2.0 * is_crowd, _NONE)
        best = np.maximum.reduceat(key, pairs.start)
        equal = np.where(key == np.repeat(best, pairs.length), place, -1)
        box = pairs.box[np.maximum.reduceat(equal, pairs.start)]
        hit = best > _NONE
        right[number, pairs.rows] = hit & ~crowd[box]
        forgotten[number, pairs.rows] = hit & crowd[box]
        taken[number, box[hit]] = True


def _overlap(a: Float, b: Float, crowd: NDArray[np.bool_]) -> Float:
    """Returns the IoU of rows, or the share of `a` that is inside a crowd `b`."""
    ends = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    sides = np.clip(ends - np.maximum(a[:, :2], b[:, :2]), 0.0, None)
    inside = sides[:, 0] * sides[:, 1]
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    whole = np.where(crowd, area_a, area_a + area_b - inside)
    shares: Float = np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    return shares


def _best(found: Found, classes: int) -> Found:
    """Returns the detections that count, sorted by group and score; equal scores keep their order."""
    group = found.boxes.image * classes + found.boxes.label
    order = np.lexsort((-found.scores, group))
    order = order[_ranks(group[order]) < MOST]
    return Found(Boxes._make(part[order] for part in found.boxes), found.scores[order])


def _ranks(group: Int) -> Int:
    """Returns each row's place in its group, of rows sorted by group."""
    place = np.arange(len(group))
    new = np.concatenate(([True], group[1:] != group[:-1])) if len(group) else np.zeros(0, bool)
    return place - np.maximum.accumulate(np.where(new, place, 0))


def precision(matches: Matches, weights: NDArray[np.integer] | None = None) -> Precision:
    """Returns the average precision.

    Args:
        matches: See `match`.
        weights: (images,) How often each image is counted, for a bootstrap; None is once.
    """
    images, classes = matches.wanted.shape
    weights = np.ones(images, np.int64) if weights is None else weights
    wanted = weights @ matches.wanted
    bounds = np.searchsorted(matches.label, np.arange(classes + 1))
    table = np.full((classes, len(THRESHOLDS)), np.nan)
    for label in np.flatnonzero(wanted):
        rows = slice(bounds[label], bounds[label + 1])
        weight = weights[matches.image[rows]]
        right = np.cumsum(matches.right[:, rows] * weight, axis=1)
        wrong = np.cumsum(~(matches.right[:, rows] | matches.forgotten[:, rows]) * weight, axis=1)
        table[label] = _average(right, wrong, int(wanted[label]))
    by_class = table.mean(axis=1)
    some = wanted > 0
    if not some.any():
        return Precision(float("nan"), float("nan"), by_class)
    return Precision(float(table[some].mean()), float(table[some, 0].mean()), by_class)


def _average(right: Int, wrong: Int, wanted: int) -> Float:
    """Returns the AP at each threshold, (T,), from running sums (T, D)."""
    recall = right / wanted
    share = right / np.maximum(right + wrong, 1)
    share = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
    found = np.empty(len(right))
    for number, (r, p) in enumerate(zip(recall, share, strict=True)):
        place = np.searchsorted(r, RECALLS, "left")
        found[number] = np.append(p, 0.0)[place].mean()
    return found

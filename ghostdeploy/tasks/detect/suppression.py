"""Non-maximum suppression: of boxes that overlap, the best one stays.

Boxes are taken in the order of score; of equal scores the one that comes first in the input. A box is dropped when its
IoU with a kept one is above the threshold; equal is kept:

    keep b  ⇔  for every kept a of the same class: |a ∩ b| / |a ∪ b| ≤ iou

Classes do not meet (`class`), or all do (`agnostic`). The often used trick of moving each class aside by its number
times a large coordinate is not used: it is wrong for negative coordinates and costs digits of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]

_BLOCK = 256
"""Boxes that are compared at once: their IoU matrix stays in the cache."""


class Suppression(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the boxes that a network gives are detections."""

    score: float
    """Boxes below or at this score are none."""
    iou: float
    """IoU above which the lesser of two boxes is dropped; 1 drops none."""
    max: int = 100
    """Detections of one image at most."""
    multi_label: bool = False
    """A box counts once for every class above `score`, else for its best class."""
    mode: Literal["class", "agnostic"] = "class"
    candidates: int = 30000
    """Boxes that are looked at, best first."""
    per_class: int | None = None
    """Candidates of one class at most; None is no limit."""

    def __post_init__(self) -> None:
        """Refuses what no image could be judged with.

        Raises:
            ValueError: Names the field, the value and what is expected.
        """
        for name in ("score", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        for name in ("max", "candidates", "per_class"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more")


class Detections(NamedTuple):
    """What is in one image, best first."""

    boxes: Float
    """(D, 4) x0, y0, x1, y1."""
    scores: Float
    """(D,)"""
    classes: Int
    """(D,)"""


def suppress(boxes: Float, scores: Float, rule: Suppression) -> Detections:
    """Returns the detections of one image.

    Args:
        boxes: (P, 4) x0, y0, x1, y1.
        scores: (P, classes) Probabilities.
        rule: What counts, and how much of it.
    """
    rows, classes = _above(scores, rule)
    found = scores[rows, classes]
    order = np.argsort(-found, kind="stable")
    if rule.per_class is not None:
        order = order[_ranks(classes[order]) < rule.per_class]
    order = order[: rule.candidates]
    rows, classes = rows[order], classes[order]
    groups = classes if rule.mode == "class" else np.zeros_like(classes)
    kept = _kept(boxes[rows], groups, rule.iou, rule.max)
    return Detections(boxes[rows[kept]], scores[rows[kept], classes[kept]], classes[kept])


def _above(scores: Float, rule: Suppression) -> tuple[Int, Int]:
    """Returns row and class of each score that is above the limit."""
    if rule.multi_label:
        rows, classes = np.nonzero(scores > rule.score)
        return rows, classes
    best = scores.argmax(axis=1)
    rows = np.flatnonzero(scores[np.arange(len(scores)), best] > rule.score)
    return rows, best[rows]


def _ranks(groups: Int) -> Int:
    """Returns how many earlier entries are of the same group."""
    order = np.argsort(groups, kind="stable")
    place = np.arange(len(groups))
    ordered = groups[order]
    new = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(groups) else np.zeros(0, bool)
    found = np.empty(len(groups), np.int64)
    found[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return found


def _kept(boxes: Float, groups: Int, iou: float, most: int) -> Int:
    """Returns the indices of boxes that stay, of boxes sorted by score.

    A block of boxes is compared with all that was kept, then with itself, so the memory is blocks times kept boxes.
    """
    kept: list[int] = []
    for begin in range(0, len(boxes), _BLOCK):
        block = np.arange(begin, min(begin + _BLOCK, len(boxes)))
        if kept:
            known = np.array(kept)
            hidden = (overlap(boxes[block], boxes[known]) > iou) & (groups[block][:, None] == groups[known])
            block = block[~hidden.any(axis=1)]
        hides = np.triu((overlap(boxes[block], boxes[block]) > iou) & (groups[block][:, None] == groups[block]), 1)
        alive = np.ones(len(block), bool)
        for place in np.flatnonzero(hides.any(axis=1)):
            if alive[place]:
                alive &= ~hides[place]
        kept += block[alive].tolist()
        if len(kept) >= most:
            return np.array(kept[:most])
    return np.array(kept, np.int64)


def overlap(a: Float, b: Float) -> Float:
    """Returns the IoU of every box of `a` (M, 4) with every box of `b` (N, 4), both x0, y0, x1, y1: (M, N)."""
    inside = np.ones((len(a), len(b)))
    for low, high in ((0, 2), (1, 3)):
        side = np.minimum(a[:, None, high], b[:, high])
        side -= np.maximum(a[:, None, low], b[:, low])
        inside *= np.maximum(side, 0.0, out=side)
    whole = _area(a)[:, None] + _area(b)[None, :] - inside
    shares: Float = np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    return shares


def _area(boxes: Float) -> Float:
    areas: Float = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas

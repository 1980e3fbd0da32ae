"""A detector against its float model: boxes found alike, and tensors where something is seen.

On one image, detections a of one model and b of the other, by score, each a takes the free b of its class with the
largest IoU ≥ ½. With m pairs

    F1 = 2m / (|a| + |b|)            the share of all boxes, of either model, that have their partner

Tensors are compared only at points where the float model's best score is at least 0.05: a detector looks at thousands
of points and sees something at a few, and the rest would drown what counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.tasks.agreement import Agreement, Difference, difference, merge_differences
from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.rows import probabilities, read
from ghostdeploy.tasks.detect.suppression import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ghostdeploy.tasks.detect.rows import Arrays, Rows
    from ghostdeploy.tasks.detect.suppression import Detections

LEAST_IOU = 0.5
LEAST_SCORE = 0.05


def boxes_alike(found: Iterable[Detections], reference: Iterable[Detections]) -> Agreement:
    """Counts the boxes that both models have found, image by image.

    Args:
        found: One model's detections by image, best first.
        reference: The float model's.
    """
    agreed = count = 0
    for one, other in zip(found, reference, strict=True):
        agreed += 2 * _pairs(one, other)
        count += len(one.scores) + len(other.scores)
    return Agreement(agreed, count)


def _pairs(one: Detections, other: Detections) -> int:
    """Returns how many boxes have a partner."""
    iou = overlap(one.boxes, other.boxes) * (one.classes[:, None] == other.classes)
    free = np.ones(len(other.scores), bool)
    for row in iou if len(free) else ():
        best = int(np.argmax(row * free))
        free[best] &= not (free[best] and row[best] >= LEAST_IOU)
    return int((~free).sum())


def differences(found: kinds.Record, outputs: Arrays, reference: Arrays) -> dict[str, Difference]:
    """Compares scores and boxes, as the network gives them, where the float model sees something.

    Args:
        found: The record.
        outputs: Tensors by name, for N images.
        reference: The float model's.

    Returns:
        By `scores` and `boxes`; nothing for `end2end`, whose rows are in another order once a score differs.
    """
    if isinstance(found, kinds.End2End):
        return {}
    given, wanted = read(found, outputs), read(found, reference)
    least = float(np.nextafter(LEAST_SCORE, 0))
    parts: dict[str, list[Difference]] = {"scores": [], "boxes": []}
    for image in range(len(wanted.scores)):
        _, points = probabilities(found, wanted, image, least)
        for name, pick in (("scores", _scores), ("boxes", _boxes)):
            parts[name].append(difference(pick(given, image, points), pick(wanted, image, points)))
    return {name: merge_differences(every) for name, every in parts.items()}


def _scores(rows: Rows, image: int, points: NDArray[np.int64]) -> NDArray[Any]:
    """Returns the scores of some points (R, columns), objectness among them."""
    scores: NDArray[Any] = rows.scores[image][points]
    if rows.objectness is None:
        return scores
    return np.concatenate([scores, rows.objectness[image][points, None]], axis=1)


def _boxes(rows: Rows, image: int, points: NDArray[np.int64]) -> NDArray[Any]:
    boxes: NDArray[Any] = rows.boxes[image][points]
    return boxes

"""A head's tensors as points and columns, whatever their arrangement and layout, and the probabilities in them.

Scores are looked at first and only the boxes of points above the limit are computed: of the 3,598 points of a 416 px
NanoDet that is all but free.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy.tasks.detect import record as kinds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]
    Arrays = Mapping[str, NDArray[Any]]


class Rows(NamedTuple):
    """A head's tensors as points and columns."""

    scores: NDArray[Any]
    """(N, P, columns of scores) as the network gives them."""
    boxes: NDArray[Any]
    """(N, P, columns)"""
    objectness: NDArray[Any] | None = None
    """(N, P)"""
    classes: NDArray[Any] | None = None
    """(N, P) Class of the one score that each point has."""


def read(found: kinds.Record, outputs: Arrays) -> Rows:
    """Returns points and columns.

    Args:
        found: The record; of `end2end` the columns are those of boxes.
        outputs: Tensors by name, for N images.
    """
    tensors = [outputs[name] for name in found.outputs]
    if isinstance(found, kinds.End2End):
        whole = np.concatenate([one.reshape(*one.shape[:2], -1) for one in tensors], axis=2)
        place = [found.columns.index(name) for name in ("x0", "y0", "x1", "y1")]
        score, label = found.columns.index("score"), found.columns.index("class")
        return Rows(whole[..., [score]], whole[..., place], None, whole[..., label])
    if isinstance(found, kinds.YoloV5):
        joint = np.concatenate([_anchored(found, one) for one in tensors], axis=1)
        return Rows(joint[..., 5:], joint[..., :4], joint[..., 4])
    if isinstance(found, kinds.Boxes) and len(tensors) == 3:
        boxes, scores, classes = tensors
        return Rows(scores.reshape(*scores.shape[:2], 1), boxes, None, classes.reshape(classes.shape[:2]))
    if found.arrangement == "joint":
        joint = _joined(found, tensors)
        first = found.classes if isinstance(found, kinds.Gfl) else joint.shape[-1] - found.classes
        parts = joint[..., :first], joint[..., first:]
        return Rows(*(parts if isinstance(found, kinds.Gfl) else reversed(parts)))
    half = len(tensors) // 2
    parts = _joined(found, tensors[:half]), _joined(found, tensors[half:])
    return Rows(*(parts if found.arrangement == "scores-boxes" else reversed(parts)))


def _joined(found: kinds.Record, tensors: list[NDArray[Any]]) -> NDArray[Any]:
    """Returns tensors of all levels as (N, P, columns)."""
    if found.layout == "npc":
        parts = tensors
    elif found.layout == "ncp":
        parts = [one.transpose(0, 2, 1) for one in tensors]
    else:
        parts = [one.reshape(*one.shape[:2], -1).transpose(0, 2, 1) for one in tensors]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _anchored(found: kinds.YoloV5, tensor: NDArray[Any]) -> NDArray[Any]:
    """Returns one level, or the whole, as (N, P, 5 + classes)."""
    if tensor.ndim == 3:
        return tensor if found.layout == "npc" else tensor.transpose(0, 2, 1)
    count, channels, height, width = tensor.shape
    anchors = len(found.anchors[0])
    split = tensor.reshape(count, anchors, channels // anchors, height, width)
    axes = (0, 1, 3, 4, 2) if found.order == "anchor-y-x" else (0, 3, 4, 1, 2)
    return split.transpose(axes).reshape(count, -1, channels // anchors)


def probabilities(found: kinds.Record, rows: Rows, image: int, least: float) -> tuple[Float, Int]:
    """Returns the probabilities of one image, and which points they are of.

    Args:
        found: The record.
        rows: Its tensors.
        image: Index of the image.
        least: Points without a probability above this are left out.

    Returns:
        (R, classes) without a background, and the points (R,) in their order.
    """
    given = rows.scores[image]
    if isinstance(found, kinds.Ssd):
        given = _without_background(found, given)
    logits = found.scores == "logits"
    limit = _logit(least) if logits else least
    points = np.flatnonzero(given.max(axis=1, initial=-np.inf) > limit)
    chosen = np.asarray(given[points], np.float64)
    chosen = sigmoid(chosen) if logits else chosen
    if rows.objectness is not None:
        whole = np.asarray(rows.objectness[image][points], np.float64)
        chosen = chosen * (sigmoid(whole) if logits else whole)[:, None]
    if rows.classes is not None:
        return _spread(chosen[:, 0], rows.classes[image][points]), points
    return chosen, points


def _without_background(found: kinds.Ssd, given: NDArray[Any]) -> NDArray[Any]:
    if found.scores == "softmax":
        given = softmax(np.asarray(given, np.float64))
    if found.background == "none":
        return given
    return given[:, 1:] if found.background == "first" else given[:, :-1]


def _spread(scores: Float, classes: NDArray[Any]) -> Float:
    """Returns one column per class from scores (R,) and their classes (R,)."""
    label = np.rint(classes).astype(np.int64)
    table = np.zeros((len(scores), int(label.max(initial=0)) + 1))
    table[np.arange(len(scores)), label] = scores
    return table


def sigmoid(values: Float) -> Float:
    """Returns 1 / (1 + e^−v) without overflow."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small))


def softmax(values: Float) -> Float:
    """Returns shares along the last axis."""
    raised: Float = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: Float = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def _logit(share: float) -> float:
    return -math.inf if share <= 0 else (math.inf if share >= 1 else math.log(share / (1 - share)))

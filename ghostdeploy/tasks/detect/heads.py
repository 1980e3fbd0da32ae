"""Boxes and scores out of a detector's tensors, by its record.

With stride s, cell (x, y) of a level of ⌈W/s⌉ × ⌈H/s⌉ cells (row by row, levels in the order of strides), σ the
logistic function, and E over softmax-weighted bins 0, 1, …:

    gfl      centre c = ((x, y) + offset)·s       box = c − s·(E_l, E_t), c + s·(E_r, E_b)
    yolov8   c = ((x, y) + ½)·s                   box as above
    yolov5   c = (2σ(t_xy) − ½ + (x, y))·s        size = (2σ(t_wh))²·anchor         score = σ(obj)·σ(class)
       v3    c = (σ(t_xy) + (x, y))·s             size = exp(t_wh)·anchor
    ssd      c = t_xy·v_xy·p_wh + p_xy            size = exp(min(t_wh·v_wh, ln(1000/16)))·p_wh   for prior p

Sources: NanoDet's `nanodet_plus_head.py` and `gfl_head.py`; the published formulas of YOLOv3, v5 and v8; SSD
(arXiv 1512.02325) with torchvision's bound of the exponent. Scores are looked at first and only boxes above the limit
are computed: of the 3,598 points of a 416 px NanoDet that is all but free.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.suppression import Detections, suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ghostdeploy.tasks.detect.suppression import Suppression

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]
    Arrays = Mapping[str, NDArray[Any]]

LARGEST_EXPONENT = math.log(1000 / 16)


class Rows(NamedTuple):
    """A head's tensors as points and columns."""

    scores: NDArray[Any]
    """(N, P, classes) as the network gives them."""
    boxes: NDArray[Any]
    """(N, P, columns)"""
    objectness: NDArray[Any] | None = None
    """(N, P)"""


def detect(
    found: kinds.Record, outputs: Arrays, size: tuple[int, int], rule: Suppression, priors: Float | None = None
) -> list[Detections]:
    """Returns what is in each image, boxes in pixels of the network's input.

    Args:
        found: The record.
        outputs: Tensors by name, for N images.
        size: Height and width of the network's input.
        rule: `found.eval` or `found.predict`.
        priors: (P, 4), of `ssd`.
    """
    if isinstance(found, kinds.End2End):
        return [_finished(found, rows, size, rule) for rows in outputs[found.outputs[0]]]
    rows = read(found, outputs)
    return [_one(found, rows, image, size, rule, priors) for image in range(len(rows.scores))]


def _one(
    found: kinds.Record, rows: Rows, image: int, size: tuple[int, int], rule: Suppression, priors: Float | None
) -> Detections:
    scores, points = probabilities(found, rows, image, rule.score)
    boxes = _BOXES[type(found)](found, np.asarray(rows.boxes[image][points], np.float64), points, size, priors)
    if found.clip:
        boxes = clip(boxes, size)
    return suppress(boxes, scores, rule)


def clip(boxes: Float, size: tuple[int, int]) -> Float:
    """Returns boxes (M, 4) cut to an image of height and width `size`."""
    height, width = size
    return np.clip(boxes, 0.0, [width, height, width, height])


def probabilities(found: kinds.Record, rows: Rows, image: int, least: float) -> tuple[Float, Int]:
    """Returns the probabilities (R, classes) of points that have one above `least`, and which points these are."""
    given = rows.scores[image]
    if isinstance(found, kinds.Ssd) and found.scores == "softmax":
        given = softmax(np.asarray(given, np.float64))
    if isinstance(found, kinds.Ssd) and found.background != "none":
        given = given[:, 1:] if found.background == "first" else given[:, :-1]
    logits = found.scores == "logits"
    limit = _logit(least) if logits else least
    points = np.flatnonzero(given.max(axis=1, initial=-np.inf) > limit)
    chosen = np.asarray(given[points], np.float64)
    chosen = sigmoid(chosen) if logits else chosen
    if rows.objectness is not None:
        whole = np.asarray(rows.objectness[image][points], np.float64)
        chosen = chosen * (sigmoid(whole) if logits else whole)[:, None]
    return chosen, points


def read(found: kinds.Record, outputs: Arrays) -> Rows:
    """Returns points and columns, whatever the arrangement and layout."""
    tensors = [outputs[name] for name in found.outputs]
    if isinstance(found, kinds.YoloV5):
        joint = np.concatenate([_anchored(found, one) for one in tensors], axis=1)
        return Rows(joint[..., 5:], joint[..., :4], joint[..., 4])
    if found.arrangement == "joint":
        joint = _joined(found, tensors)
        if isinstance(found, kinds.Gfl):
            return Rows(joint[..., : found.classes], joint[..., found.classes :])
        columns = joint.shape[-1] - found.classes
        return Rows(joint[..., columns:], joint[..., :columns])
    half = len(tensors) // 2
    first, second = _joined(found, tensors[:half]), _joined(found, tensors[half:])
    return Rows(first, second) if found.arrangement == "scores-boxes" else Rows(second, first)


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
    """Returns one level, or all that is decoded, as (N, P, 5 + classes) in the record's order of rows."""
    if tensor.ndim != 4:
        return tensor if found.layout == "npc" else tensor.transpose(0, 2, 1)
    count, channels, height, width = tensor.shape
    anchors = len(found.anchors[0])
    split = tensor.reshape(count, anchors, channels // anchors, height, width)
    axes = (0, 1, 3, 4, 2) if found.order == "anchor-y-x" else (0, 3, 4, 1, 2)
    return split.transpose(axes).reshape(count, -1, channels // anchors)


class Cells(NamedTuple):
    """Where each point of a head stands."""

    x: Float
    """(P,) Column, in cells."""
    y: Float
    stride: Float
    level: Int
    anchor: Int


def cells(strides: tuple[int, ...], size: tuple[int, int], *, anchors: int = 1, order: str = "anchor-y-x") -> Cells:
    """Returns the points of an input of height and width `size`, level by level.

    Args:
        strides: Pixels per cell, by level.
        size: Height and width of the input.
        anchors: Of each cell.
        order: Which runs slowest within a level.
    """
    parts = []
    for level, stride in enumerate(strides):
        height, width = (-(-side // stride) for side in size)
        axes = (anchors, height, width) if order == "anchor-y-x" else (height, width, anchors)
        grid = np.indices(axes).reshape(3, -1)
        anchor, y, x = grid if order == "anchor-y-x" else (grid[2], grid[0], grid[1])
        same = np.ones(len(x), np.int64)
        parts.append((x, y, stride * same, level * same, anchor))
    x, y, stride, level, anchor = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Cells(x.astype(float), y.astype(float), stride.astype(float), level, anchor)


def _by_distances(columns: Float, points: Int, strides: tuple[int, ...], size: tuple[int, int], offset: float) -> Float:
    """Returns corners from left, top, right and bottom distances, (R, 4·bins) or (R, 4)."""
    grid = cells(strides, size)
    bins = columns.shape[1] // 4
    distances = columns
    if bins > 1:
        distances = softmax(columns.reshape(-1, 4, bins)) @ np.arange(bins, dtype=float)
    stride = grid.stride[points]
    x, y = (grid.x[points] + offset) * stride, (grid.y[points] + offset) * stride
    left, top, right, bottom = distances.T * stride
    return np.stack([x - left, y - top, x + right, y + bottom], axis=1)


def _gfl(found: kinds.Gfl, columns: Float, points: Int, size: tuple[int, int], _: Float | None) -> Float:
    return _by_distances(columns, points, found.strides, size, found.offset)


def _yolov8(found: kinds.YoloV8, columns: Float, points: Int, size: tuple[int, int], _: Float | None) -> Float:
    if found.state == "raw":
        return _by_distances(columns, points, found.strides, size, 0.5)
    return corners(columns, "cxcywh") * _unit(found.unit, size)


def _yolov5(found: kinds.YoloV5, columns: Float, points: Int, size: tuple[int, int], _: Float | None) -> Float:
    if found.state == "decoded":
        return corners(columns, "cxcywh") * _unit(found.unit, size)
    grid = cells(found.strides, size, anchors=len(found.anchors[0]), order=found.order)
    anchor = np.asarray(found.anchors, float)[grid.level[points], grid.anchor[points]]
    place = np.stack([grid.x[points], grid.y[points]], axis=1)
    share = sigmoid(columns)
    if found.xy == "v5":
        centre, sides = 2 * share[:, :2] - 0.5 + place, (2 * share[:, 2:]) ** 2 * anchor
    else:
        centre, sides = share[:, :2] + place, np.exp(columns[:, 2:]) * anchor
    return corners(np.concatenate([centre * grid.stride[points, None], sides], axis=1), "cxcywh")


def _ssd(found: kinds.Ssd, columns: Float, points: Int, size: tuple[int, int], priors: Float | None) -> Float:
    if found.box_order == "yxhw":
        columns = columns[:, [1, 0, 3, 2]]
    if found.state == "decoded":
        return columns * _unit("relative", size)
    if priors is None:
        raise ValueError("an ssd head needs its priors")
    prior = priors[points]
    scaled = columns * np.asarray(found.variances)
    centre = scaled[:, :2] * prior[:, 2:] + prior[:, :2]
    sides = np.exp(np.minimum(scaled[:, 2:], LARGEST_EXPONENT)) * prior[:, 2:]
    return corners(np.concatenate([centre, sides], axis=1), "cxcywh") * _unit("relative", size)


def _boxes(found: kinds.Boxes, columns: Float, _: Int, size: tuple[int, int], __: Float | None) -> Float:
    return corners(columns, found.format) * _unit(found.unit, size)


_BOXES: dict[type, Callable[..., Float]] = {
    kinds.Boxes: _boxes,
    kinds.Gfl: _gfl,
    kinds.YoloV5: _yolov5,
    kinds.YoloV8: _yolov8,
    kinds.Ssd: _ssd,
}


def _finished(found: kinds.End2End, rows: NDArray[Any], size: tuple[int, int], rule: Suppression) -> Detections:
    """Returns one image's rows that hold a detection, best first."""
    place = [found.columns.index(name) for name in ("x0", "y0", "x1", "y1")]
    rows = np.asarray(rows, np.float64)
    scores = rows[:, found.columns.index("score")]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > rule.score][: rule.max]
    boxes = rows[np.ix_(order, place)] * _unit(found.unit, size)
    return Detections(boxes, scores[order], np.rint(rows[order, found.columns.index("class")]).astype(np.int64))


def corners(boxes: Float, form: str) -> Float:
    """Returns boxes (M, 4) of the form `xyxy`, `xywh` or `cxcywh` as x0, y0, x1, y1."""
    if form == "xyxy":
        return boxes
    low = boxes[:, :2] - (boxes[:, 2:] / 2 if form == "cxcywh" else 0)
    return np.concatenate([low, low + boxes[:, 2:]], axis=1)


def _unit(unit: str, size: tuple[int, int]) -> Float:
    height, width = size if unit == "relative" else (1, 1)
    return np.array([width, height, width, height], float)


def sigmoid(values: Float) -> Float:
    """Returns 1 / (1 + e^−v) without overflow."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small))


def softmax(values: Float) -> Float:
    """Returns shares along the last axis."""
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _logit(share: float) -> float:
    return -math.inf if share <= 0 else (math.inf if share >= 1 else math.log(share / (1 - share)))

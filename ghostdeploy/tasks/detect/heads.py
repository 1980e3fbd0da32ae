"""Boxes and scores out of a detector's tensors, by its record.

With stride s, cell (x, y) of a level of ⌈W/s⌉ × ⌈H/s⌉ cells (row by row, levels in the order of strides), σ the
logistic function, and E over softmax-weighted bins 0, 1, …:

    gfl      centre c = ((x, y) + offset)·s       box = c − s·(E_l, E_t), c + s·(E_r, E_b)
    yolov8   c = ((x, y) + ½)·s                   box as above
    yolov5   c = (2σ(t_xy) − ½ + (x, y))·s        size = (2σ(t_wh))²·anchor         score = σ(obj)·σ(class)
       v3    c = (σ(t_xy) + (x, y))·s             size = exp(t_wh)·anchor
    ssd      c = t_xy·v_xy·p_wh + p_xy            size = exp(min(t_wh·v_wh, ln(1000/16)))·p_wh   for prior p

Sources: NanoDet's `nanodet_plus_head.py` and `gfl_head.py`; the published formulas of YOLOv3, v5 and v8; SSD
(arXiv 1512.02325) with torchvision's bound of the exponent.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.rows import probabilities, read, sigmoid, softmax
from ghostdeploy.tasks.detect.suppression import Detections, suppress

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ghostdeploy.tasks.detect.rows import Arrays, Rows
    from ghostdeploy.tasks.detect.suppression import Suppression

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]

LARGEST_EXPONENT = math.log(1000 / 16)


def detect(found: kinds.Record, outputs: Arrays, size: tuple[int, int], rule: Suppression) -> list[Detections]:
    """Returns what is in each image, boxes in pixels of the network's input.

    Args:
        found: The record.
        outputs: Tensors by name, for N images.
        size: Height and width of the network's input.
        rule: `found.eval` or `found.predict`.
    """
    rows = read(found, outputs)
    return [_one(found, rows, image, size, rule) for image in range(len(rows.scores))]


def _one(found: kinds.Record, rows: Rows, image: int, size: tuple[int, int], rule: Suppression) -> Detections:
    scores, points = probabilities(found, rows, image, rule.score)
    boxes = decode(found, rows.boxes[image][points], points, size)
    if found.clip:
        boxes = clip(boxes, size)
    return suppress(boxes, scores, rule)


def decode(found: kinds.Record, columns: NDArray[Any], points: Int, size: tuple[int, int]) -> Float:
    """Returns the boxes of some points of one image, (R, 4) x0, y0, x1, y1 in pixels of the network's input.

    Args:
        found: The record.
        columns: (R, columns of boxes), see `rows.read`.
        points: (R,) Which points these are.
        size: Height and width of the network's input.
    """
    return _BOXES[type(found)](found, np.asarray(columns, np.float64), points, size)


def clip(boxes: Float, size: tuple[int, int]) -> Float:
    """Returns boxes (M, 4) cut to an image of height and width `size`."""
    height, width = size
    return np.clip(boxes, 0.0, [width, height, width, height])


class Cells(NamedTuple):
    """Where each point of a head stands."""

    x: Float
    """(P,) Column, in cells."""
    y: Float
    stride: Float
    level: Int
    anchor: Int


@lru_cache(maxsize=16)
def cells(strides: tuple[int, ...], size: tuple[int, int], *, anchors: int = 1, order: str = "anchor-y-x") -> Cells:
    """Returns the points of an input of height and width `size`, level by level.

    Args:
        strides: Pixels per cell, by level.
        size: Height and width of the input.
        anchors: Of each cell.
        order: Which runs slowest within a level.
    """
    parts = []
    for level, step in enumerate(strides):
        height, width = (-(-side // step) for side in size)
        axes = (anchors, height, width) if order == "anchor-y-x" else (height, width, anchors)
        grid = np.indices(axes).reshape(3, -1)
        anchor, y, x = grid if order == "anchor-y-x" else (grid[2], grid[0], grid[1])
        same = np.ones(len(x), np.int64)
        parts.append((x.astype(float), y.astype(float), step * same.astype(float), level * same, anchor))
    found = Cells._make(np.concatenate(one) for one in zip(*parts, strict=True))
    for array in found:
        array.flags.writeable = False  # the next caller gets the same
    return found


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


def _gfl(found: kinds.Gfl, columns: Float, points: Int, size: tuple[int, int]) -> Float:
    return _by_distances(columns, points, found.strides, size, found.offset)


def _yolov8(found: kinds.YoloV8, columns: Float, points: Int, size: tuple[int, int]) -> Float:
    if found.state == "raw":
        return _by_distances(columns, points, found.strides, size, 0.5)
    return corners(columns, "cxcywh") * _unit(found.unit, size)


def _yolov5(found: kinds.YoloV5, columns: Float, points: Int, size: tuple[int, int]) -> Float:
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


def _ssd(found: kinds.Ssd, columns: Float, points: Int, size: tuple[int, int]) -> Float:
    if found.box_order == "yxhw":
        columns = columns[:, [1, 0, 3, 2]]
    if found.state == "decoded":
        return columns * _unit("relative", size)
    prior = np.array([found.priors[point] for point in points.tolist()], np.float32).reshape(-1, 4)
    scaled = columns * np.asarray(found.variances)
    centre = scaled[:, :2] * prior[:, 2:] + prior[:, :2]
    sides = np.exp(np.minimum(scaled[:, 2:], LARGEST_EXPONENT)) * prior[:, 2:]
    return corners(np.concatenate([centre, sides], axis=1), "cxcywh") * _unit("relative", size)


def _end2end(found: kinds.End2End, columns: Float, _: Int, size: tuple[int, int]) -> Float:
    return columns * _unit(found.unit, size)


def _boxes(found: kinds.Boxes, columns: Float, _: Int, size: tuple[int, int]) -> Float:
    return corners(columns, found.format) * _unit(found.unit, size)


_BOXES: dict[type, Callable[..., Float]] = {
    kinds.Boxes: _boxes,
    kinds.End2End: _end2end,
    kinds.Gfl: _gfl,
    kinds.YoloV5: _yolov5,
    kinds.YoloV8: _yolov8,
    kinds.Ssd: _ssd,
}


def corners(boxes: Float, form: str) -> Float:
    """Returns boxes (M, 4) of the form `xyxy`, `xywh` or `cxcywh` as x0, y0, x1, y1."""
    if form == "xyxy":
        return boxes
    low = boxes[:, :2] - (boxes[:, 2:] / 2 if form == "cxcywh" else 0)
    return np.concatenate([low, low + boxes[:, 2:]], axis=1)


def _unit(unit: str, size: tuple[int, int]) -> Float:
    height, width = size if unit == "relative" else (1, 1)
    return np.array([width, height, width, height], float)

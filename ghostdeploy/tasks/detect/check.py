"""A record is held against what the float model gave for real images; a wrong one is refused with what proves it.

    shapes     see `fit`
    scores     a value outside [0, 1] is no probability, all values inside it are no logits, one value is no score
    boxes      of points with the best scores: none has a negative size, they lie in the input, pixels reach beyond 2
    order      the centre of a row of YOLOv5 is (gx − ½ … gx + 1½, gy − ½ … gy + 1½)·s, of its own cell (gx, gy)

What leaves numbers as they are cannot be proven: the half cell of a centre, the order of classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.fit import require_fit
from ghostdeploy.tasks.detect.heads import cells, decode
from ghostdeploy.tasks.detect.record import WrongRecord
from ghostdeploy.tasks.detect.rows import probabilities, read, sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.tasks.detect.rows import Arrays, Rows

    Float = NDArray[np.float64]

_BEST = 50
"""Points of an image whose boxes are looked at."""
_MOST = 0.5
"""Share of these that must be impossible: a network may err at some."""
_ROUNDING = 1e-4
"""By which a probability may leave [0, 1]."""


def check(
    found: kinds.Record,
    outputs: Arrays,
    size: tuple[int, int],
    *,
    labels: int | None = None,
) -> None:
    """Refuses a record that does not describe a network's outputs.

    Args:
        found: The record, completed.
        outputs: Tensors by name that the float model gave for images, not for noise.
        size: Height and width of the network's input.
        labels: Number of class names of the model; None where there are none.

    Raises:
        WrongRecord: One sentence with the fact.
    """
    for name in found.outputs:
        if not np.isfinite(outputs[name]).all():
            raise WrongRecord(f"output {name!r} holds values that are not finite")
    require_fit(found, {name: outputs[name].shape for name in found.outputs}, size, labels=labels)
    rows = read(found, outputs)
    _check_scores(found, rows)
    if rows.classes is not None:
        _check_classes(rows, labels)
    _check_boxes(found, rows, size)
    if isinstance(found, kinds.YoloV5) and found.state == "decoded":
        _check_order(found, rows, size)


def _check_scores(found: kinds.Record, rows: Rows) -> None:
    """Tells logits from probabilities by their values."""
    given = rows.scores if rows.objectness is None else np.concatenate([rows.scores, rows.objectness[..., None]], 2)
    low, high = float(given.min()), float(given.max())
    shares = low >= -_ROUNDING and high <= 1 + _ROUNDING
    if low == high:
        raise WrongRecord(f"all {given.size} scores are {low:.4g}, so they tell nothing apart")
    if found.scores == "probabilities" and not shares:
        raise WrongRecord(f"scores are from {low:.4g} to {high:.4g}, so they are logits and not probabilities")
    if found.scores == "logits" and shares:
        twice = sigmoid(np.array([low, high]))
        raise WrongRecord(
            f"all scores are from {low:.4g} to {high:.4g}, so they are probabilities and not logits: a second sigmoid "
            f"would make them {twice[0]:.2f} to {twice[1]:.2f}"
        )
    if found.scores == "softmax" and shares and np.allclose(given.sum(axis=2), 1, atol=1e-3):
        raise WrongRecord("the scores of every point add up to 1, so they are probabilities and no input of a softmax")


def _check_classes(rows: Rows, labels: int | None) -> None:
    """Looks at classes that the graph has chosen, of rows that are not empty."""
    chosen = rows.classes[rows.scores[..., 0] > 0] if rows.classes is not None else np.zeros(0)
    if (wrong := chosen[(chosen != np.rint(chosen)) | (chosen < 0)]).size:
        raise WrongRecord(f"the column of classes holds {wrong[0]:.4g}, expected indices from 0")
    if labels is not None and chosen.size and chosen.max() >= labels:
        raise WrongRecord(f"the column of classes goes up to {chosen.max():.0f}, expected below {labels} labels")


def _check_boxes(found: kinds.Record, rows: Rows, size: tuple[int, int]) -> None:
    """Looks at the boxes of the points with the best scores."""
    boxes = np.concatenate([_best(found, rows, image, size) for image in range(len(rows.scores))])
    if not len(boxes):
        return
    sides = boxes[:, 2:] - boxes[:, :2]
    whole = np.array([size[1], size[0]], float)
    if (share := float((sides < -1).any(axis=1).mean())) > _MOST:
        raise WrongRecord(f"{share:.0%} of the boxes with the best scores have a negative size: their form is another")
    unit = getattr(found, "unit", None) if getattr(found, "state", "decoded") == "decoded" else None
    if unit == "pixels" and np.abs(boxes).max() <= 2 < whole.min():
        raise WrongRecord(f"no coordinate of a box is above {boxes.max():.3g}, so they are relative and not in pixels")
    if unit == "relative" and (reach := float(np.median(np.abs(boxes / np.tile(whole, 2)).max(axis=1)))) > 2:
        raise WrongRecord(
            f"boxes reach {reach:.4g} times the size of the input, so they are in pixels and not relative"
        )
    if unit is None and not isinstance(found, kinds.Ssd):  # distances of an untrained network reach anywhere
        return
    outside = np.maximum(-boxes[:, :2], boxes[:, 2:] - whole).max(axis=1, initial=0) > 0.25 * whole.max()
    if (share := float(outside.mean())) > _MOST:
        raise WrongRecord(
            f"{share:.0%} of the boxes with the best scores lie far outside the input: their form is another"
        )


def _best(found: kinds.Record, rows: Rows, image: int, size: tuple[int, int]) -> Float:
    scores, where = probabilities(found, rows, image, 0.0)
    best = where[np.argsort(-scores.max(axis=1, initial=0.0), kind="stable")[:_BEST]]
    return decode(found, rows.boxes[image][best], best, size)


def _check_order(found: kinds.YoloV5, rows: Rows, size: tuple[int, int]) -> None:
    """Compares the centres of decoded rows with the cells that the order of rows gives them."""
    grid = cells(found.strides, size, anchors=len(found.anchors[0]), order=found.order)
    unit = np.array([size[1], size[0]]) if found.unit == "relative" else 1
    place = rows.boxes[..., :2] * unit / grid.stride[:, None] - np.stack([grid.x, grid.y], axis=1)
    wrong = np.any((place < -0.6) | (place > 1.6), axis=(0, 2))
    if wrong.mean() > _MOST:
        row = int(np.flatnonzero(wrong)[0])
        x, y = rows.boxes[0, row, :2] * unit
        raise WrongRecord(
            f"row {row} has its centre at {x:.0f}, {y:.0f}, not in cell {grid.x[row]:.0f}, {grid.y[row]:.0f} of stride "
            f"{grid.stride[row]:.0f}: the order of rows is not {found.order}, or the strides are others"
        )

"""Whether a record can describe tensors of some shapes at all; values are looked at by `check`.

    names      outputs that there are; scores and boxes in as many tensors each
    rank       (N, P, columns) or (N, columns, P), maps (N, columns, h, w), as the layout says
    rows       P = Σ ⌈H/s⌉·⌈W/s⌉ over strides, maps are ⌈H/s⌉ × ⌈W/s⌉; as many as there are priors
    columns    classes + 4·bins, 5 + classes, …; the model's labels are as many as the classes

A manifest may say anything, so its record is held against the shapes that it declares before a tensor is read by it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.complete import box_columns, columns, groups, is_flat, points
from ghostdeploy.tasks.detect.record import WrongRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Shapes = Mapping[str, Sequence[int]]


def require_fit(found: kinds.Record, shapes: Shapes, size: tuple[int, int], *, labels: int | None = None) -> None:
    """Refuses a record that does not describe tensors of these shapes.

    Args:
        found: The record, completed.
        shapes: (N, …) By name, of the network's outputs.
        size: Height and width of the network's input.
        labels: Number of class names of the model; None where there are none.

    Raises:
        WrongRecord: One sentence with the fact.
    """
    if absent := [name for name in found.outputs if name not in shapes]:
        raise WrongRecord(f"the network has no output {absent[0]!r}; it has {', '.join(shapes)}")
    _check_ranks(found, shapes)
    _check_rows(found, shapes, size)
    _check_columns(found, shapes, labels)


def _check_ranks(found: kinds.Record, shapes: Shapes) -> None:
    """Looks at how many tensors there are, and at their dimensions."""
    parts = groups(found)
    if not found.outputs or len({len(names) for names in parts}) > 1 or not all(parts):
        what = "one at least" if len(parts) < 2 else "as many of scores as of boxes"
        raise WrongRecord(f"the record names {len(found.outputs)} outputs, expected {what}")
    for name in found.outputs:
        shape = shapes[name]
        rank = len(shape)
        maps = found.layout == "nchw" or (isinstance(found, kinds.YoloV5) and rank == 4)
        fits = rank >= 2 if is_flat(found) or isinstance(found, kinds.End2End) else rank == (4 if maps else 3)
        if not fits or not math.prod(shape[1:]):
            raise WrongRecord(f"output {name!r} has shape {tuple(shape)}, expected that of layout {found.layout}")
    if is_flat(found):
        boxes, *others = (tuple(shapes[name]) for name in found.outputs)
        if boxes[2:] != (4,) or any(math.prod(one[1:]) != boxes[1] for one in others):
            raise WrongRecord(
                f"boxes, scores and classes have shapes {boxes}, {others[0]}, {others[1]}, expected "
                f"(N, P, 4), (N, P), (N, P)"
            )


def _check_rows(found: kinds.Record, shapes: Shapes, size: tuple[int, int]) -> None:
    """Compares the number of points with what strides and size give, or with the priors."""
    wanted = points(found, size)
    for names in groups(found):
        given = [_count(found, shapes[name]) for name in names]
        if wanted is not None and given not in ([sum(wanted)], wanted):
            strides = "/".join(map(str, getattr(found, "strides", ())))
            raise WrongRecord(
                f"{_outputs(names)} {_sum(given)} points, expected {_sum(wanted)}: strides {strides} of "
                f"{size[0]}×{size[1]} pixels"
            )
        priors = len(found.priors) if isinstance(found, kinds.Ssd) and found.state == "raw" else None
        if priors is not None and sum(given) != priors:
            raise WrongRecord(f"{_outputs(names)} {_sum(given)} points, expected {priors} as there are priors")


def _check_columns(found: kinds.Record, shapes: Shapes, labels: int | None) -> None:
    """Compares columns with classes and bins, classes with the model's labels."""
    wide = box_columns(found)
    extra = wide + isinstance(found, kinds.YoloV5)
    wanted = {
        "joint": (found.classes + extra,),
        "scores-boxes": (found.classes, wide),
        "boxes-scores": (wide, found.classes),
    }
    for names, expected in zip(groups(found), wanted[found.arrangement], strict=False):
        for name in names:
            given = columns(found, shapes[name])
            if given != expected or found.classes < 1:
                what = f"{extra} and one per class" if found.arrangement == "joint" else f"{expected}"
                raise WrongRecord(f"output {name!r} has {given} columns per point, expected {what}")
    if isinstance(found, kinds.End2End):
        given = sum(math.prod(shapes[name][2:]) for name in found.outputs)
        if given != len(found.columns):
            raise WrongRecord(f"{_outputs(found.outputs)} {given} columns, expected {', '.join(found.columns)}")
    classes = found.classes - (isinstance(found, kinds.Ssd) and found.background != "none")
    if labels is not None and groups(found) and classes != labels:
        raise WrongRecord(f"{_outputs(found.outputs)} {classes} classes, expected {labels} as the model has labels")


def _count(found: kinds.Record, shape: Sequence[int]) -> int:
    """Returns the points of a tensor (N, …)."""
    return math.prod(shape[1:]) // columns(found, shape)


def _outputs(names: tuple[str, ...]) -> str:
    return f"output {names[0]!r} has" if len(names) == 1 else f"outputs {', '.join(names)} have"


def _sum(counts: list[int]) -> str:
    return " + ".join(map(str, counts))

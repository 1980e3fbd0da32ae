"""What the shapes of a detector's tensors leave no doubt of is filled into its record.

    points of a head      P = Σ ⌈H/s⌉·⌈W/s⌉ over its strides s, times the anchors of a cell
    layout                (N, P, columns), (N, columns, P), or maps (N, columns, h, w): where P, or a 4, stands
    boxes and scores      boxes have 4 columns, or 4 for each bin; a tensor with others holds scores
    classes               columns that are left

So `--decode gfl` alone describes a NanoDet. What may be either is asked for, never guessed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.record import WrongRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Shapes = Mapping[str, Sequence[int]]


def complete(found: kinds.Record, shapes: Shapes, size: tuple[int, int]) -> kinds.Record:
    """Returns the record with `outputs`, `arrangement`, `layout`, `state` and `classes` filled in.

    Args:
        found: The record; names and classes that it has stay.
        shapes: Of the network's outputs, in their order, each with a batch dimension.
        size: Height and width of the network's input.

    Raises:
        WrongRecord: It names an output that there is not, or the shapes leave a choice.
    """
    names = found.outputs or tuple(shapes)
    if unknown := [name for name in names if name not in shapes]:
        raise WrongRecord(f"the network has no output {unknown[0]!r}; it has {', '.join(shapes)}")
    if isinstance(found, kinds.End2End) or is_flat(found):
        return msgspec.structs.replace(found, outputs=names)
    found = _with_layout(found, [shapes[name] for name in names], size)
    if not found.outputs:
        found = _with_outputs(found, {name: shapes[name] for name in names})
    if found.classes:
        return found
    return msgspec.structs.replace(found, classes=_classes(found, shapes))


def points(found: kinds.Record, size: tuple[int, int]) -> list[int] | None:
    """Returns the points of each level of a head, None where they follow from nothing."""
    if not isinstance(found, kinds.Gfl | kinds.YoloV5 | kinds.YoloV8):
        return None
    each = [math.prod(-(-side // stride) for side in size) for stride in found.strides]
    if isinstance(found, kinds.YoloV5):
        return [len(anchors) * count for anchors, count in zip(found.anchors, each, strict=False)]
    return each


def groups(found: kinds.Record) -> list[tuple[str, ...]]:
    """Returns the names of outputs that together are the points of all levels: one group, or scores and boxes."""
    if isinstance(found, kinds.End2End) or is_flat(found):
        return []
    if isinstance(found, kinds.YoloV5) or found.arrangement == "joint":
        return [found.outputs]
    half = len(found.outputs) // 2
    return [found.outputs[:half], found.outputs[half:]]


def is_flat(found: kinds.Record) -> bool:
    """Tells whether boxes, scores and classes are three outputs."""
    return isinstance(found, kinds.Boxes) and len(found.outputs) == 3


def box_columns(found: kinds.Record) -> int:
    """Returns the columns of a point's box."""
    if isinstance(found, kinds.Gfl):
        return 4 * (found.reg_max + 1)
    return 4 * found.bins if isinstance(found, kinds.YoloV8) and found.state == "raw" else 4


def columns(found: kinds.Record, shape: Sequence[int]) -> int:
    """Returns the columns of each point of a tensor."""
    if isinstance(found, kinds.YoloV5) and len(shape) == 4:
        return shape[1] // len(found.anchors[0])
    return shape[2] if found.layout == "npc" and len(shape) == 3 else shape[1]


def _with_layout(found: kinds.Record, shapes: Sequence[Sequence[int]], size: tuple[int, int]) -> kinds.Record:
    """Returns the record with `layout`, and with `state` where maps tell that nothing is decoded."""
    ranks = {len(shape) for shape in shapes}
    if not ranks <= {3, 4} or len(ranks) > 1:
        given = ", ".join(str(tuple(shape)) for shape in shapes)
        raise WrongRecord(f"outputs have shapes {given}, expected (N, points, columns) or maps (N, columns, h, w)")
    if ranks == {4}:
        found = msgspec.structs.replace(found, layout="nchw")
        if isinstance(found, kinds.YoloV5 | kinds.YoloV8):
            found = msgspec.structs.replace(found, state="raw", scores="logits")
        return found
    counts = points(found, size)
    if counts is None:
        layouts, fits = ("ncp", "npc"), [any(shape[axis] == 4 for shape in shapes) for axis in (1, 2)]
    else:
        marks = {sum(counts)} if len(shapes) == 1 else {*counts, sum(counts)}
        layouts, fits = ("npc", "ncp"), [all(shape[axis] in marks for shape in shapes) for axis in (1, 2)]
    if sum(fits) != 1:
        return found
    return msgspec.structs.replace(found, layout=layouts[fits.index(True)])


def _with_outputs(found: kinds.Record, shapes: Shapes) -> kinds.Record:
    """Returns the record with its tensors in order: scores before boxes, levels from fine to coarse."""
    if len(shapes) == 1:
        return msgspec.structs.replace(found, outputs=tuple(shapes), arrangement="joint")
    by_size = sorted(shapes, key=lambda name: -math.prod(shapes[name]) // columns(found, shapes[name]))
    wide = box_columns(found)
    boxes = [name for name in by_size if columns(found, shapes[name]) == wide]
    scores = [name for name in by_size if name not in boxes]
    if isinstance(found, kinds.YoloV5) or (not boxes and _level_each(found, shapes)):
        return msgspec.structs.replace(found, outputs=tuple(by_size), arrangement="joint")
    if len(boxes) != len(scores):
        given = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise WrongRecord(
            f"which outputs hold scores and which hold boxes of {wide} columns is not clear from {given}: name them, "
            "as in outputs=scores/boxes,arrangement=scores-boxes"
        )
    return msgspec.structs.replace(found, outputs=(*scores, *boxes), arrangement="scores-boxes")


def _level_each(found: kinds.Record, shapes: Shapes) -> bool:
    """Tells whether each tensor can be the joint columns of one level."""
    return isinstance(found, kinds.Gfl | kinds.YoloV8) and len(shapes) == len(found.strides)


def _classes(found: kinds.Record, shapes: Shapes) -> int:
    """Returns the columns of scores; 0 or less where the record is wrong."""
    last = shapes[found.outputs[0 if found.arrangement != "boxes-scores" else -1]]
    if isinstance(found, kinds.YoloV5):
        return columns(found, last) - 5
    return columns(found, last) - (box_columns(found) if found.arrangement == "joint" else 0)

"""THE table of tasks: one row each, and those that plugins add by an entry point of the group `ghostdeploy.tasks`.

Listing tasks imports none of their code; `task_of` does.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ghostdeploy.tasks.base import Task, TaskInfo

_log = logging.getLogger("ghostdeploy")

GROUP = "ghostdeploy.tasks"
"""Of entry points."""


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task."""

    name: str
    summary: str
    """What it gives for an image, a few words."""
    task: str
    """Import string of a `Task`."""
    data: str | None = None
    """Import string of what reads a labelled set: a path → a `Labelled`; None where there is no measure."""
    measure: str | None = None
    """Import string of its `Measure`."""
    decodes: bool = False
    """It needs a decode record."""
    ranks: bool = False
    """Labels, if any, name the scores of the first output."""


ROWS = (
    TaskRow(
        name="classify",
        summary="classes with probabilities",
        task="ghostdeploy.tasks.classify:Classify",
        ranks=True,
    ),
    TaskRow(
        name="detect",
        summary="boxes with labels",
        task="ghostdeploy.tasks.detect.task:Detect",
        data="ghostdeploy.tasks.detect.data:read_coco",
        measure="ghostdeploy.tasks.detect.measure:BoxMeasure",
        decodes=True,
    ),
    TaskRow(
        name="landmarks",
        summary="points",
        task="ghostdeploy.tasks.landmarks.task:FindPoints",
        data="ghostdeploy.tasks.landmarks.data:read_points",
        measure="ghostdeploy.tasks.landmarks.measure:PointMeasure",
    ),
    TaskRow(
        name="embed",
        summary="a unit vector",
        task="ghostdeploy.tasks.embed.task:Embed",
        data="ghostdeploy.tasks.embed.data:read_pairs",
        measure="ghostdeploy.tasks.embed.measure:PairMeasure",
    ),
    TaskRow(
        name="segment",
        summary="a class for every pixel",
        task="ghostdeploy.tasks.segment.task:Segmenter",
        data="ghostdeploy.tasks.segment.data:read_masks",
        measure="ghostdeploy.tasks.segment.measure:MaskMeasure",
    ),
    TaskRow(name="raw", summary="the outputs as they are", task="ghostdeploy.tasks.raw:Raw", ranks=True),
)


@cache
def tasks() -> Mapping[str, TaskRow]:
    """Returns all rows by name; a plugin cannot replace one of ours."""
    found = {row.name: row for row in ROWS}
    for point in entry_points(group=GROUP):
        owner = "a distribution" if point.dist is None else point.dist.name
        try:
            row = point.load()
        except Exception as error:  # whatever another distribution raises
            _log.warning("task %s of %s cannot be used: %s", point.name, owner, error)
            continue
        if not isinstance(row, TaskRow):
            _log.warning("task %s of %s cannot be used: it is %s, expected a TaskRow", point.name, owner, type(row))
            continue
        found.setdefault(row.name, row)
    return found


def find(name: str) -> TaskRow:
    """Returns a row.

    Raises:
        UsageError: There is none.
    """
    if (row := tasks().get(name)) is None:
        raise UsageError(f"unknown task {name!r}", hint=did_you_mean(name, tasks(), otherwise=", ".join(tasks())))
    return row


def task_of(info: TaskInfo, size: tuple[int, int]) -> Task:
    """Returns the task that a record describes.

    Args:
        info: As in the manifest.
        size: Height and width of the network's input.

    Raises:
        UsageError: There is no task of this name, or the record does not fit it.
    """
    try:
        found: Task = resolve(find(info.name).task)(info, size)
    except ValueError as error:
        raise UsageError(f"task {info.name}: {error}") from error
    return found


def resolve(text: str) -> Any:
    """Returns what an import string names."""
    module, _, name = text.partition(":")
    return getattr(import_module(module), name)

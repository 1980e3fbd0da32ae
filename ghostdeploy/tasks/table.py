"""THE table of tasks: one row each, and those that plugins add by an entry point of the group `ghostdeploy.tasks`.

Listing tasks imports none of their code; `task_of` does.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from ghostdeploy.errors import BundleError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ghostdeploy.tasks.base import Task, TaskInfo

_log = logging.getLogger("ghostdeploy")

GROUP = "ghostdeploy.tasks"
"""Of entry points."""


class Declared(Protocol):
    """An output as a manifest declares it."""

    @property
    def name(self) -> str:
        """Of the tensor."""

    @property
    def dtype(self) -> str:
        """NumPy name."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The batch first; None is any size."""


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
    takes: str = ""
    """What a labelled set of it is, in words."""
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
        takes="COCO JSON and its images",
        decodes=True,
    ),
    TaskRow(
        name="landmarks",
        summary="points",
        task="ghostdeploy.tasks.landmarks.task:FindPoints",
        data="ghostdeploy.tasks.landmarks.data:read_points",
        measure="ghostdeploy.tasks.landmarks.measure:PointMeasure",
        takes="an .npz with images and points, or a JSON file and its images",
    ),
    TaskRow(
        name="embed",
        summary="a unit vector",
        task="ghostdeploy.tasks.embed.task:Embed",
        data="ghostdeploy.tasks.embed.data:read_pairs",
        measure="ghostdeploy.tasks.embed.measure:PairMeasure",
        takes="a CSV file of pairs and its images, or an .npz",
    ),
    TaskRow(
        name="segment",
        summary="a class for every pixel",
        task="ghostdeploy.tasks.segment.task:Segmenter",
        data="ghostdeploy.tasks.segment.data:read_masks",
        measure="ghostdeploy.tasks.segment.measure:MaskMeasure",
        takes="a folder with images and masks",
    ),
    TaskRow(name="raw", summary="the outputs as they are", task="ghostdeploy.tasks.raw:Raw", ranks=True),
)


@cache
def tasks() -> Mapping[str, TaskRow]:
    """Returns all rows by name; a plugin cannot replace one of ours."""
    from importlib.metadata import entry_points  # costs an app 2 MB, and does nothing for the rows above

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


def recorded(name: str) -> TaskRow:
    """Returns the row of a task that a manifest names.

    Raises:
        BundleError: There is none.
    """
    if (row := tasks().get(name)) is None:
        raise BundleError(
            f"the manifest names task {name!r}, which is unknown here",
            hint="install the distribution that brings this task, or export the bundle again",
        )
    return row


def task_of(info: TaskInfo, size: tuple[int, int], outputs: Sequence[Declared] | None = None) -> Task:
    """Returns the task that a record describes.

    Args:
        info: As in the manifest.
        size: Height and width of the network's input.
        outputs: As the manifest declares them; None where the record is still to be completed.

    Raises:
        BundleError: The manifest names no task of ours, or its record cannot describe the outputs.
        UsageError: The same of a record that is still to be completed: it was asked for.
    """
    row = find(info.name) if outputs is None else recorded(info.name)
    try:
        found: Task = resolve(row.task)(info, size)
    except ValueError as error:
        refused = UsageError if outputs is None else BundleError
        raise refused(f"task {info.name}: {error}") from error
    if outputs is None or any(side is None for one in outputs for side in one.shape[1:]):
        return found
    try:
        sizes = {one.name: [side or 0 for side in one.shape[1:]] for one in outputs}
        declared = {one.name: np.broadcast_to(np.zeros((), one.dtype), (1, *sizes[one.name])) for one in outputs}
        misfit = found.misfit(declared)
    except (TypeError, ValueError) as error:  # no type, no shape
        misfit = str(error)
    if misfit is not None:
        raise BundleError(f"the manifest contradicts itself: {misfit}", hint="export the bundle again")
    return found


def resolve(text: str) -> Any:
    """Returns what an import string names."""
    module, _, name = text.partition(":")
    return getattr(import_module(module), name)

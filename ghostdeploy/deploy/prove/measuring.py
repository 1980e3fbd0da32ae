"""A task's measure on a labelled set, of the reference and of an artefact alike."""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ghostdeploy.arguments import require_path
from ghostdeploy.bundle.fidelity import Measured
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.image_layouts import stored_as
from ghostdeploy.deploy.prove.images import ImageSet
from ghostdeploy.deploy.prove.streaming import batches
from ghostdeploy.errors import DataError
from ghostdeploy.machine import usable_cores
from ghostdeploy.preprocess import geometry
from ghostdeploy.tasks import table
from ghostdeploy.tasks.base import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Stages
    from ghostdeploy.tasks.base import Task
    from ghostdeploy.tasks.measure import Labelled, Measure


_NO_FIGURE = 1e308
"""Drop to a figure that does not exist."""


def read(name: str, path: Path) -> Labelled:
    """Reads the labelled set of a task that has a measure.

    Raises:
        DataError: It is damaged, none, or stored in a way that has no labels of this task.
    """
    row = table.find(name)
    reader = row.data
    assert reader is not None  # the caller asked for a task with a measure
    if (stored := stored_as(require_path("the labelled set", path))) is not None:
        raise DataError(
            f"{path} is {stored}, which has no labels for task {name}",
            hint=f"give {row.takes or 'its own labelled set'}",
        )
    found: Labelled = table.resolve(reader)(path)
    return found


def images_of(data: Labelled) -> ImageSet:
    """Returns the images of a labelled set."""
    return ImageSet(data.source, list(data.images), None, None)


def measure(
    run: Callable[[NDArray[Any]], Arrays],
    task: Task,
    data: Labelled,
    spec: Preprocess,
    labels: Sequence[str],
    stages: Stages,
) -> Measure:
    """Runs a model on a labelled set.

    Args:
        run: Model input of N images → outputs by name.
        task: What they mean.
        data: The set.
        spec: How an image becomes the input.
        labels: Names of the classes.
        stages: Receives the progress.

    Raises:
        DataError: The set does not fit the model, or an image cannot be decoded.
    """
    found = empty(task, data, labels)
    index = 0
    with closing(batches(images_of(data), spec, threads=usable_cores())) as given:
        for batch in given:
            add(found, index, run(batch), spec, labels)
            index += len(batch)
            stages.advance(index, len(data.images))
    return found


def allowed_drop(name: str, asked: float | None) -> float:
    """Returns the largest allowed drop of a task's measure: what was asked for, or the measure's own."""
    row = table.find(name)
    assert row.measure is not None  # as for `read`
    own: float = table.resolve(row.measure).max_drop
    return own if asked is None else asked


def of_outputs(outputs: Arrays, task: Task, data: Labelled, spec: Preprocess, labels: Sequence[str]) -> Measure:
    """Measures outputs (N, …) for all N images of a labelled set; the arguments are those of `measure`."""
    found = empty(task, data, labels)
    add(found, 0, outputs, spec, labels)
    return found


def empty(task: Task, data: Labelled, labels: Sequence[str]) -> Measure:
    """Returns the measure of a task, of no image yet; the arguments are those of `measure`."""
    row = table.find(task.info.name)
    assert row.measure is not None  # as for `read`
    found: Measure = table.resolve(row.measure)(task, data, len(labels) or None)
    return found


def add(found: Measure, start: int, outputs: Arrays, spec: Preprocess, labels: Sequence[str]) -> None:
    """Adds the outputs for the images from `start` on."""
    for place in range(len(next(iter(outputs.values())))):
        height, width = map(int, found.data.sizes[start + place])
        one = {name: array[place : place + 1] for name, array in outputs.items()}
        found.add(start + place, one, Seen(geometry(spec, (height, width)), (height, width), labels))


def figures_of(found: Measure) -> dict[str, float | None]:
    """Returns the figures of a measure; None for what does not exist, as JSON has no NaN."""
    return {name: value if value is None or math.isfinite(value) else None for name, value in found.figures().items()}


def compare(ours: Measure, reference: Measure, max_drop: float | None) -> Measured:
    """Compares two models that saw the same images.

    Args:
        ours: The artefact's.
        reference: The float model's.
        max_drop: Largest allowed drop; None is the measure's own.
    """
    limit, lost = ours.max_drop if max_drop is None else max_drop, ours.drop(reference)
    return Measured(
        measure=ours.main,
        figures=figures_of(ours),
        reference_figures=figures_of(reference),
        count=len(ours.data.images),
        drop=lost.value if math.isfinite(lost.value) else _NO_FIGURE,
        drop_ci95=lost.ci95 if all(map(math.isfinite, lost.ci95)) else None,
        max_drop=limit,
        relative=ours.relative,
        verdict=judge.measured_verdict(lost.value, limit),
        source=ours.data.source,
    )

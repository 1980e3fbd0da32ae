"""`eval` of bundles whose task has a measure of its own: boxes, points, pairs, masks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ghostdeploy.bundle.fidelity import Measured  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove import judge, measuring
from ghostdeploy.deploy.prove.sharded.job import measure_of
from ghostdeploy.errors import GhostDeployError, UsageError
from ghostdeploy.tasks import table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.prove.sharded.spread import Gathered
    from ghostdeploy.deploy.prove.ways import Ways
    from ghostdeploy.runtimes import Runtime
    from ghostdeploy.tasks.measure import Labelled, Measure


class TaskEvaluation(Record, frozen=True, kw_only=True):
    """What `eval` found for one bundle."""

    bundle: str
    data: str
    task: str
    count: int
    measure: str
    """The figure that decides."""
    figures: dict[str, float | None]
    """None is not measurable."""
    reference: str | None = None
    comparison: Measured | None = None
    """With the reference, on the same images."""
    verdict: Literal["measured", "failed"] = "measured"
    """`failed`: the drop is beyond the limit that was given."""
    failed_because: str | None = None


def measured_task(paths: Sequence[Path]) -> str | None:
    """Returns the task of bundles, None where it is none with a measure of its own.

    Raises:
        UsageError: They are of different tasks.
    """
    names = {}
    for path in paths:
        try:
            names[open_bundle(path, check_hashes=False).manifest.task.name] = path
        except GhostDeployError:  # reported when its turn comes
            continue
    if len(names) > 1 and any(table.recorded(name).measure for name in names):
        raise UsageError(
            f"the bundles are of several tasks: {', '.join(f'{path} of {name}' for name, path in names.items())}",
            hint="evaluate each task by itself",
        )
    return next((name for name in names if table.recorded(name).measure), None)


def require_images(paths: Sequence[Path]) -> None:
    """Refuses bundles that no labelled image can feed.

    Raises:
        UsageError: One takes ready inputs.
    """
    for path in paths:
        try:
            ready = open_bundle(path, check_hashes=False).manifest.preprocess.ready
        except GhostDeployError:  # reported when its turn comes
            continue
        if ready:
            raise UsageError(
                f"{path} takes ready arrays, and labelled sets hold images",
                hint="ghostdeploy run BUNDLE --inputs FILE.npz gives its outputs",
            )


def evaluate(
    paths: Sequence[Path], task: str, data: Labelled, reference: Path | None, max_drop: float | None, ways: Ways
) -> list[TaskEvaluation]:
    """Measures bundles of one task.

    Args:
        paths: Bundles.
        task: Of all of them.
        data: Its labelled set.
        reference: A bundle to compare each one with.
        max_drop: Largest allowed drop of the measure; None is the measure's own, and fails nothing.
        ways: How.

    Raises:
        GhostDeployError: As for `commands.evaluate`.
    """
    base = None if reference is None else _measure(reference, data, ways)
    found = []
    for path in paths:
        try:
            ours = _measure(path, data, ways)
            one = figures(ours.measure, None if base is None else base.measure, str(path), str(reference), max_drop)
        except GhostDeployError as error:
            ways.refuse(path, error)
            continue
        found.append(one)
        if ways.spread is not None and ours.gathered is not None:
            ways.spread.write_record(ours.gathered, None if base is None else base.gathered, data)
    return found


def figures(ours: Measure, base: Measure | None, bundle: str, reference: str, max_drop: float | None) -> TaskEvaluation:
    """Returns the record of one bundle; see `evaluate`."""
    compared = None if base is None else measuring.compare(ours, base, max_drop)
    verdict, because = judge.compared(compared, max_drop)
    return TaskEvaluation(
        bundle=bundle,
        data=ours.data.source,
        task=ours.task.info.name,
        count=len(ours.data.images),
        measure=ours.main,
        figures=measuring.figures_of(ours),
        reference=None if base is None else reference,
        comparison=compared,
        verdict=verdict,
        failed_because=because,
    )


class _Measured(NamedTuple):
    measure: Measure
    gathered: Gathered | None
    """What each image gave, where it was evaluated in parts."""


def _measure(path: Path, data: Labelled, ways: Ways) -> _Measured:
    spec = open_bundle(path, check_hashes=False).manifest.preprocess
    if ways.spread is not None:
        found = ways.spread.gather(path, measuring.images_of(data), data)
        return _Measured(measure_of(found.subject, data, found.partials), found)
    with ways.opened(path) as runtime:
        (port,) = runtime.info()["inputs"]
        with ways.stages.stage(f"evaluate {runtime.info()['name']}"):
            run = partial(_run, runtime, port["name"])
            return _Measured(measuring.measure(run, runtime.task, data, spec, runtime.labels, ways.stages), None)


def _run(runtime: Runtime, name: str, batch: NDArray[Any]) -> Arrays:
    return runtime.infer({name: batch})

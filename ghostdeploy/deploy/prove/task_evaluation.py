"""`eval` of bundles whose task has a measure of its own: boxes, points, pairs, masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ghostdeploy.bundle.fidelity import Measured  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove import judge, measuring
from ghostdeploy.errors import GhostDeployError, UsageError
from ghostdeploy.tasks import table

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from ghostdeploy.deploy.prove.streaming import Opens
    from ghostdeploy.progress import Stages
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
    if len(names) > 1 and any(table.find(name).measure for name in names):
        raise UsageError(
            f"the bundles are of several tasks: {', '.join(f'{path} of {name}' for name, path in names.items())}",
            hint="evaluate each task by itself",
        )
    return next((name for name in names if table.find(name).measure), None)


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
    paths: Sequence[Path],
    task: str,
    *,
    data: str | os.PathLike[str],
    reference: str | os.PathLike[str] | None,
    max_drop: float | None,
    stages: Stages,
    on_error: Callable[[Path, GhostDeployError], None] | None,
    opened: Opens,
) -> list[TaskEvaluation]:
    """Measures bundles of one task; arguments as for `commands.evaluate`.

    Raises:
        GhostDeployError: As there.
    """
    labelled = measuring.read(task, Path(data))
    base = None if reference is None else _measure(Path(reference), labelled, stages, opened)
    found = []
    for path in paths:
        try:
            ours = _measure(path, labelled, stages, opened)
            compared = None if base is None else measuring.compare(ours, base, max_drop)
        except GhostDeployError as error:
            if on_error is None:
                raise
            on_error(path, error)
            continue
        verdict, because = judge.compared(compared, max_drop)
        found.append(
            TaskEvaluation(
                bundle=str(path),
                data=labelled.source,
                task=task,
                count=len(labelled.images),
                measure=ours.main,
                figures=measuring.figures_of(ours),
                reference=None if reference is None else str(reference),
                comparison=compared,
                verdict=verdict,
                failed_because=because,
            )
        )
    return found


def _measure(path: Path, data: Labelled, stages: Stages, opened: Opens) -> Measure:
    spec = open_bundle(path, check_hashes=False).manifest.preprocess
    with opened(path) as runtime:
        (port,) = runtime.info()["inputs"]
        with stages.stage(f"evaluate {runtime.info()['name']}"):
            return measuring.measure(
                lambda batch: runtime.infer({port["name"]: batch}), runtime.task, data, spec, runtime.labels, stages
            )

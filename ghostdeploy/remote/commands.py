"""`verify`, `eval`, `bench` and `doctor` on devices: bundles are checked here, proven there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ghostdeploy.arguments import require_path, require_paths
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.measure.bench import Bench, require_rounds
from ghostdeploy.deploy.measure.doctor import Examination
from ghostdeploy.deploy.prove.commands import Verification, require_comparison, shipped_set
from ghostdeploy.deploy.prove.evaluate import Evaluation
from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation, measured_task, require_images
from ghostdeploy.device.jobs import Job
from ghostdeploy.errors import GhostDeployError, UsageError
from ghostdeploy.remote.address import parse
from ghostdeploy.remote.cargo import Cargo
from ghostdeploy.remote.fleet import Answer, Ways, ask

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from ghostdeploy.device.records import Device, State
    from ghostdeploy.progress import Listener

T = TypeVar("T")
__all__ = ["Found", "Ways", "bench", "doctor", "evaluate", "verify"]


@dataclass(kw_only=True)
class Found(Generic[T]):
    """What a command found on one device.

    Attributes:
        where: As the user gave it.
        device: What it is; None where it was not reached.
        states: What was seen while it worked.
        results: By bundle, in the order in which they were given.
        errors: Of bundles, likewise.
        error: Why the device gave nothing, or stopped giving.
    """

    where: str
    device: Device | None
    states: tuple[State, ...]
    results: list[tuple[Path, T]] = field(default_factory=list)
    errors: list[tuple[Path, GhostDeployError]] = field(default_factory=list)
    error: GhostDeployError | None = None


class _Load:
    """Bundles on their way; a damaged one is kept as an error."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> None:
        self.cargo = Cargo()
        self.good: list[Path] = []
        self.places: list[str] = []
        self.bad: list[tuple[Path, GhostDeployError]] = []
        for path in require_paths("bundle", paths):
            try:
                self.places.append(self.cargo.bundle(open_bundle(path), str(path)))
                self.good.append(path)
            except GhostDeployError as error:
                self.bad.append((path, error))
        if self.bad and not self.good:
            raise self.bad[0][1]

    def found(
        self, answer: Answer, results: list[tuple[Path, Any]], errors: list[tuple[Path, GhostDeployError]]
    ) -> Found[Any]:
        return Found(
            where=answer.where,
            device=answer.device,
            states=answer.states,
            results=results,
            errors=[*self.bad, *errors],
            error=answer.error,
        )


def verify(
    paths: Sequence[str | os.PathLike[str]],
    wheres: Sequence[str],
    *,
    ways: Ways | None = None,
    listener: Listener | None = None,
) -> list[Found[Verification]]:
    """Checks bundles here and replays their golden vectors on devices, each in a process of its own.

    Args:
        paths: Bundles.
        wheres: Devices, see `address.parse`.
        ways: How they are reached.
        listener: Receives the progress.

    Raises:
        UsageError: An address is none.
        BundleError: Every bundle is damaged.
    """
    load = _Load(paths)
    jobs = [Job(command="verify", bundles=(place,)) for place in load.places]
    found = []
    for answer in ask(wheres, load.cargo, jobs, ways=ways, listener=listener):
        decoded = ((path, answer.result(job, Verification)) for job, path in enumerate(load.good))
        errors = [(load.good[job], error) for job, _, error in answer.failures]
        found.append(load.found(answer, [(path, one) for path, one in decoded if one is not None], errors))
    return found


def evaluate(
    paths: Sequence[str | os.PathLike[str]],
    wheres: Sequence[str],
    *,
    data: str | os.PathLike[str] | None = None,
    reference: str | os.PathLike[str] | None = None,
    max_drop: float | None = None,
    ways: Ways | None = None,
    listener: Listener | None = None,
) -> list[Found[Any]]:
    """Measures bundles on labelled images, on devices; arguments as for `deploy.prove.commands.evaluate`.

    The set is sent like the bundles. Its images are decoded and prepared there.

    Raises:
        GhostDeployError: As there.
    """
    bundles = require_paths("bundle", paths)
    require_comparison(bundles, reference, max_drop)
    require_images(bundles)
    task = measured_task(bundles)
    load = _Load(bundles)
    missing = UsageError("no labelled images to evaluate on", hint="add --data")
    labelled = shipped_set(load.good, missing) if data is None else require_path("the labelled set", data)
    job = Job(
        command="eval",
        bundles=tuple(load.places),
        data=load.cargo.data(labelled),
        reference=None if reference is None else load.cargo.bundle(open_bundle(reference), str(reference)),
        max_drop=max_drop,
    )
    kind: Any = list[Evaluation] if task is None else list[TaskEvaluation]
    found = []
    for answer in ask(wheres, load.cargo, [job], ways=ways, listener=listener):
        results = [(Path(one.bundle), one) for one in answer.result(0, kind) or []]
        errors = [(load.good[place], error) for _, place, error in answer.failures if place is not None]
        whole = [error for _, place, error in answer.failures if place is None]
        answer.error = answer.error or next(iter(whole), None)
        found.append(load.found(answer, results, errors))
    return found


def bench(
    paths: Sequence[Path],
    wheres: Sequence[str],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 20,
    ways: Ways | None = None,
    listener: Listener | None = None,
) -> list[Found[Bench]]:
    """Measures bundles against each other on devices; see `deploy.measure.bench`.

    Raises:
        UsageError: A device is emulated: its times mean nothing.
        BundleError: A bundle is damaged.
    """
    emulated = [where for where in wheres if parse(where).kind == "qemu"]
    if emulated:
        raise UsageError(
            f"bench measures time, and the processor of {emulated[0]} is computed by another one",
            hint="ghostdeploy verify --on proves a bundle there; measure on a real device",
        )
    require_rounds(rounds)
    load = _Load(paths)
    if load.bad:
        raise load.bad[0][1]
    job = Job(command="bench", bundles=tuple(load.places), threads=threads, batch=batch, rounds=rounds)
    found = []
    for answer in ask(wheres, load.cargo, [job], ways=ways, listener=listener):
        one = answer.result(0, Bench)
        answer.error = answer.error or next((error for *_, error in answer.failures), None)
        found.append(load.found(answer, [] if one is None else [(Path(), one)], []))
    return found


def doctor(wheres: Sequence[str], *, ways: Ways | None = None) -> list[Found[Examination]]:
    """Examines devices: engines, processor, what they can run.

    Raises:
        UsageError: An address is none.
    """
    found = []
    for answer in ask(wheres, Cargo(), [Job(command="doctor")], ways=ways):
        one = answer.result(0, Examination)
        error = answer.error or next((error for *_, error in answer.failures), None)
        results = [] if one is None else [(Path(), one)]
        found.append(
            Found(where=answer.where, device=answer.device, states=answer.states, results=results, error=error)
        )
    return found

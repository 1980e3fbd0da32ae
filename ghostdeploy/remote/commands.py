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
from ghostdeploy.device.proof import Proof, Timed
from ghostdeploy.device.receipt import latency_of, mark, receipt
from ghostdeploy.errors import GhostDeployError, UsageError
from ghostdeploy.remote.address import parse
from ghostdeploy.remote.cargo import Cargo
from ghostdeploy.remote.fleet import Answer, Ways, ask

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from ghostdeploy.device.receipt import Command, Receipt
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
        receipts: Of every result.
    """

    where: str
    device: Device | None
    states: tuple[State, ...]
    results: list[tuple[Path, T]] = field(default_factory=list)
    errors: list[tuple[Path, GhostDeployError]] = field(default_factory=list)
    error: GhostDeployError | None = None
    receipts: list[Receipt] = field(default_factory=list)


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

    def proofs(self) -> list[Job]:
        """Returns the jobs that prove every bundle."""
        return [Job(command="prove", bundles=(place,)) for place in self.places]

    def found(self, answer: Answer, results: list[tuple[Path, Any]]) -> Found[Any]:
        """Returns what a device gave; a failure of a bundle's own job names no place."""
        errors: dict[tuple[Path, str], GhostDeployError] = {}
        for job, place, error in answer.failures:  # two jobs about one bundle may fail for one reason
            errors.setdefault((self.good[job if place is None else place], error.message), error)
        return Found(
            where=answer.where,
            device=answer.device,
            states=answer.states,
            results=results,
            errors=[*self.bad, *((path, error) for (path, _), error in errors.items())],
            error=answer.error,
        )

    def receipt(self, command: Command, number: int, answer: Answer, **measured: Any) -> list[Receipt]:
        """Returns the receipt of a bundle on a device; none where it was not proven."""
        proof = answer.result(number, Proof)
        if proof is None or answer.device is None:
            return []
        path = self.good[number]
        marked = mark(str(path), open_bundle(path, check_hashes=False).manifest)
        return [receipt(command, marked, answer.device, answer.states, proof, **measured)]


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
    load, found = _Load(paths), []
    for answer in ask(wheres, load.cargo, load.proofs(), ways=ways, listener=listener):
        there = {number: proof for number in range(len(load.good)) if (proof := answer.result(number, Proof))}
        one = load.found(answer, [(load.good[number], proof.verification) for number, proof in there.items()])
        one.receipts = [made for number in there for made in load.receipt("verify", number, answer)]
        found.append(one)
    return found


def evaluate(
    paths: Sequence[str | os.PathLike[str]],
    wheres: Sequence[str],
    *,
    data: str | os.PathLike[str] | None = None,
    reference: str | os.PathLike[str] | None = None,
    max_drop: float | None = None,
    prove: bool = False,
    ways: Ways | None = None,
    listener: Listener | None = None,
) -> list[Found[Any]]:
    """Measures bundles on labelled images, on devices; the set is sent like the bundles, and prepared there.

    Args:
        paths: Bundles.
        wheres: Devices.
        data: Labelled set; this and the next two as for `deploy.prove.commands.evaluate`.
        reference: A bundle to compare with.
        max_drop: Largest allowed drop.
        prove: Replay the golden vectors there too, for receipts.
        ways: How devices are reached.
        listener: Receives the progress.

    Raises:
        GhostDeployError: As there.
    """
    bundles = require_paths("bundle", paths)
    require_comparison(bundles, reference, max_drop)
    require_images(bundles)
    task, load = measured_task(bundles), _Load(bundles)
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
    before, found = load.proofs() if prove else [], []
    for answer in ask(wheres, load.cargo, [*before, job], ways=ways, listener=listener):
        _take_whole(answer, len(before))
        bad = {place for job, place, _ in answer.failures if job == len(before)}
        good = [number for number in range(len(load.good)) if number not in bad]
        measured = dict(zip(good, answer.result(len(before), kind) or [], strict=False))  # none where all failed
        one = load.found(answer, [(load.good[number], result) for number, result in measured.items()])
        for number, result in measured.items() if prove else ():
            one.receipts += load.receipt("eval", number, answer, evaluation=result)
        found.append(one)
    return found


def bench(
    paths: Sequence[Path],
    wheres: Sequence[str],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 20,
    prove: bool = False,
    ways: Ways | None = None,
    listener: Listener | None = None,
) -> list[Found[Bench]]:
    """Measures bundles against each other on devices; see `deploy.measure.bench`.

    Args:
        paths: Bundles.
        wheres: Devices.
        threads: Threads of each engine.
        batch: Images per call.
        rounds: Blocks of calls of each bundle.
        prove: Replay the golden vectors there too, for receipts.
        ways: How devices are reached.
        listener: Receives the progress.

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
    job = Job(command="time", bundles=tuple(load.places), threads=threads, batch=batch, rounds=rounds)
    before, found = load.proofs() if prove else [], []
    for answer in ask(wheres, load.cargo, [*before, job], ways=ways, listener=listener):
        _take_whole(answer, len(before))
        timed = answer.result(len(before), Timed)
        one = load.found(answer, [] if timed is None else [(Path(), timed.bench)])
        if prove and timed is not None:
            for number in range(len(load.good)):
                one.receipts += load.receipt("bench", number, answer, latency=latency_of(timed, number))
        found.append(one)
    return found


def _take_whole(answer: Answer, job: int) -> None:
    """Takes the failure of a whole job for that of its device."""
    whole = [one for one in answer.failures if one[0] == job and one[1] is None]
    answer.failures = [one for one in answer.failures if one not in whole]
    answer.error = answer.error or next((error for *_, error in whole), None)


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

"""`--on adb://SERIAL`: the jobs of a command, done by the static runner, as events like those of other devices."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.deploy.measure.bench import bench
from ghostdeploy.deploy.prove.commands import evaluate
from ghostdeploy.device.jobs import Event, failure
from ghostdeploy.device.proof import Timed
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.remote.phone.connected import connected
from ghostdeploy.remote.phone.examination import examine
from ghostdeploy.remote.phone.latency import PhoneTestbed, require_real
from ghostdeploy.remote.phone.proof import prove
from ghostdeploy.remote.phone.runtime import load_there
from ghostdeploy.remote.reach import no_python
from ghostdeploy.remote.runner import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ghostdeploy.device.jobs import Job
    from ghostdeploy.remote.address import Address
    from ghostdeploy.remote.cargo import Cargo
    from ghostdeploy.remote.phone.connected import Phone
    from ghostdeploy.remote.runner.replay import Replayable

_DONE = ("prove", "eval", "time", "doctor")


def run(address: Address, cargo: Cargo, asked: Sequence[Job], took: Callable[[Event], None], seconds: float) -> None:
    """Does jobs on an Android device.

    Args:
        address: Of the device.
        cargo: Knows the bundles that the jobs name.
        asked: What is to be done.
        took: Receives every event.
        seconds: Time limit of each process there.

    Raises:
        GhostDeployError: See `connected`; also where a job needs Python there, or cannot be done at all.
    """
    other = next((job.command for job in asked if job.command not in _DONE), None)
    if other is not None:
        raise no_python(address.text, other)
    work = _Work(cargo, took)
    waiting = {number: job for number, job in enumerate(asked) if work.prepare(number, job)}
    if not waiting:
        return
    with connected(address.host, seconds=seconds) as phone:
        took(Event(device=phone.device))
        if any(job.command == "time" for job in waiting.values()):
            require_real(phone.device)
        for number, job in waiting.items():
            work.do(phone, number, job)
        if {job.command for job in asked} != {"doctor"}:
            phone.observe()
        took(Event(states=tuple(phone.states)))


class _Work:
    """The jobs of one device; a `Listener`, too.

    Args:
        cargo: Knows the bundles.
        took: Receives every event.
    """

    def __init__(self, cargo: Cargo, took: Callable[[Event], None]) -> None:
        self._cargo, self._took = cargo, took
        self._given: dict[int, Replayable] = {}

    def prepare(self, number: int, job: Job) -> bool:
        """Checks the bundle of a proof; returns whether there is something to do."""
        if job.command == "prove":
            try:
                self._given[number] = replay.prepare(self._path(job.bundles[0]))
            except GhostDeployError as error:
                self._took(Event(job=number, failed=failure(error)))
                return False
        return True

    def do(self, phone: Phone, number: int, job: Job) -> None:
        """Does a job; an error after which nothing can be done on the device is raised."""
        try:
            if job.command == "prove":
                found: Any = prove(phone, self._given[number])
            elif job.command == "eval":
                found = self._evaluate(phone, number, job)
            elif job.command == "time":
                found = self._time(phone, job)
            else:
                found = examine(phone)
        except GhostDeployError as error:
            if error is phone.adb.failed:
                raise
            self._took(Event(job=number, failed=failure(error)))
        else:
            self._took(Event(job=number, result=msgspec.to_builtins(found)))

    def _evaluate(self, phone: Phone, number: int, job: Job) -> Any:
        paths = [self._path(place) for place in job.bundles]
        waiting = list(enumerate(paths))

        def note(path: Path, error: GhostDeployError) -> None:
            if error is phone.adb.failed:
                raise error
            place = next(one for one in waiting if one[1] == path)
            waiting.remove(place)  # a bundle that is named twice fails twice
            self._took(Event(job=number, place=place[0], failed=failure(error)))

        return evaluate(
            paths,
            data=None if job.data is None else self._path(job.data),
            reference=None if job.reference is None else self._path(job.reference),
            max_drop=job.max_drop,
            listener=self,
            on_error=None if len(paths) == 1 else note,
            opened=partial(load_there, phone),
        )

    def _time(self, phone: Phone, job: Job) -> Timed:
        blocks: list[Any] = []
        found = bench(
            [self._path(place) for place in job.bundles],
            threads=job.threads,
            batch=job.batch,
            rounds=job.rounds,
            listener=self,
            keep=blocks.append,
            testbed=PhoneTestbed(phone),
        )
        return Timed(bench=found, blocks_ms=tuple(blocks))

    def _path(self, place: str) -> Path:
        return Path(self._cargo.as_given(place))

    def started(self, stage: str) -> None:
        """See `Listener`."""
        self._took(Event(started=stage))

    def advanced(self, stage: str, done: int, total: int) -> None:
        """See `Listener`."""
        self._took(Event(advanced=(stage, done, total)))

    def finished(self, stage: str, seconds: float) -> None:
        """See `Listener`."""
        self._took(Event(finished=(stage, seconds)))

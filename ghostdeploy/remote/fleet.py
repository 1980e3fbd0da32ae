"""A command on one or several devices, and what came back."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ghostdeploy.device.jobs import SECONDS, Order
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.progress import Silent
from ghostdeploy.remote import adb, on_android, session
from ghostdeploy.remote.address import parse
from ghostdeploy.remote.reach import reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.device.jobs import Event, Job, Tensor
    from ghostdeploy.device.records import Device, State
    from ghostdeploy.progress import Listener
    from ghostdeploy.remote.cargo import Cargo

T = TypeVar("T")
MODULES = ["numpy", "PIL", "msgspec"]
"""What the device wheel needs beside the engines, which the bundles ask for one by one."""
_log = logging.getLogger("ghostdeploy")


@dataclass(kw_only=True)
class Answer:
    """What one device gave.

    Attributes:
        where: As the user gave it.
        device: What it is; None where it was not reached.
        results: By job.
        failures: Errors of (job, place in the job or None).
        states: What was seen while it worked.
        tensors: What was read inside a payload.
        error: Why it gave nothing, or stopped giving.
    """

    where: str
    device: Device | None = None
    results: dict[int, Any] = field(default_factory=dict)
    failures: list[tuple[int, int | None, GhostDeployError]] = field(default_factory=list)
    states: tuple[State, ...] = ()
    tensors: list[Tensor] = field(default_factory=list)
    error: GhostDeployError | None = None

    def result(self, job: int, kind: type[T]) -> T | None:
        """Returns what a job gave; None where it failed."""
        return msgspec.convert(self.results[job], type=kind) if job in self.results else None

    def take(self, event: Event, listener: Listener) -> None:
        """Takes an event."""
        if event.device is not None:
            self.device = event.device
        if event.result is not None and event.job is not None:
            self.results[event.job] = event.result
        if event.failed is not None and event.job is not None:
            self.failures.append((event.job, event.place, located(event.failed.error(), self.where)))
        if event.tensor is not None:
            self.tensors.append(event.tensor)
        if event.states is not None:
            self.states = event.states
        if event.warning is not None:
            _log.warning("%s: %s", self.where, event.warning)
        _show(event, listener)


def located(error: GhostDeployError, where: str) -> GhostDeployError:
    """Returns an error whose message names the device."""
    if where not in error.message:
        error.message = f"on {where}: {error.message}"
    return error


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How devices are reached, and how long they may work."""

    python: str = "python3"
    """The Python of a device."""
    seconds: float = SECONDS
    """Of each job."""


def ask(
    wheres: Sequence[str],
    cargo: Cargo,
    jobs: Sequence[Job],
    *,
    ways: Ways | None = None,
    listener: Listener | None = None,
) -> list[Answer]:
    """Does jobs on devices, on all at once.

    Args:
        wheres: Addresses.
        cargo: What the jobs name.
        jobs: What each device does, one after the other.
        ways: How devices are reached.
        listener: Receives the progress of one device; that of several would be mixed.

    Returns:
        One answer per address; a device that failed has its error in it.

    Raises:
        UsageError: An address is none.
    """
    ways, shown = ways or Ways(), (listener or Silent()) if len(wheres) == 1 else Silent()
    addresses = [parse(where) for where in wheres]

    def one(number: int) -> Answer:
        found = Answer(where=wheres[number])
        try:
            if addresses[number].kind == "adb":
                on_android.run(addresses[number], cargo, jobs, lambda event: found.take(event, shown), ways.seconds)
                return found
            way = reach(addresses[number], python=ways.python, listener=shown)
            order = Order(
                where=way.where,
                reached=addresses[number].kind,
                emulator=way.emulator,
                jobs=tuple(jobs),
                seconds=ways.seconds,
            )
            session.run(way, cargo, order, MODULES, lambda event: found.take(event, shown))
        except GhostDeployError as error:
            found.error = located(error, found.where)
        return found

    with ThreadPoolExecutor(max_workers=len(wheres)) as pool:
        try:
            return list(pool.map(one, range(len(wheres))))
        except BaseException:  # interrupted: nobody waits for the devices
            session.end_all()
            adb.end_all()
            raise


def _show(event: Event, listener: Any) -> None:
    if event.started is not None:
        listener.started(event.started)
    if event.advanced is not None:
        listener.advanced(*event.advanced)
    if event.finished is not None:
        listener.finished(*event.finished)

"""What a device is asked to do, and what it answers: records, one JSON line each.

host → device   Order              once
device → host   Event              any number, in the order in which things happen: the device, progress, a
                                   warning, the outcome of a job, the states that were seen
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ghostdeploy import errors
from ghostdeploy.bundle.record import Record
from ghostdeploy.device.records import Device, Reached, State  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.errors import GhostDeployError

Command = Literal["verify", "prove", "eval", "bench", "time", "turns", "diagnose", "doctor"]
"""`prove` is `verify`, `time` is `bench`, with what a receipt wants beside; `turns` is what `tune` measures."""
SECONDS = 1800.0
"""Time limit of a job where nobody sets another."""
STOP = "stop"
"""File in the working folder of the work: the host has had enough rounds."""


class Entry(Record, frozen=True, kw_only=True):
    """What takes part in `turns`."""

    key: str
    path: str
    threads: int
    batch: int
    profile: Literal["latency", "throughput"]


class Job(Record, frozen=True, kw_only=True):
    """Work for one process."""

    command: Command
    bundles: tuple[str, ...] = ()
    """Paths on the device."""
    data: str | None = None
    reference: str | None = None
    max_drop: float | None = None
    threads: int = 1
    batch: int = 1
    rounds: int = 20
    queue: bool = False
    images: int = 1
    """Golden images of `diagnose`."""
    entries: tuple[Entry, ...] = ()


class Order(Record, frozen=True, kw_only=True):
    """Everything that a device is to do, one job after the other."""

    where: str
    reached: Reached
    emulator: str | None
    jobs: tuple[Job, ...]
    seconds: float
    """Time limit of each job."""


class Failure(Record, frozen=True, kw_only=True):
    """An error of ours, as it travels."""

    kind: str
    message: str
    hint: str | None = None

    def error(self) -> GhostDeployError:
        """Returns the error again, of its class."""
        found = getattr(errors, self.kind, GhostDeployError)
        ours = isinstance(found, type) and issubclass(found, GhostDeployError)
        made: GhostDeployError = (found if ours else GhostDeployError)(self.message, hint=self.hint)
        return made


def failure(error: GhostDeployError) -> Failure:
    """Returns an error as it travels."""
    return Failure(kind=type(error).__name__, message=error.message, hint=error.hint)


class Tensor(Record, frozen=True, kw_only=True):
    """Numbers from inside a payload."""

    name: str
    shape: tuple[int, ...]
    data: bytes
    """float32, little-endian, in the order of C."""


class Event(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened; one field is set, with `job` where it belongs to one."""

    job: int | None = None
    device: Device | None = None
    started: str | None = None
    """A stage."""
    advanced: tuple[str, int, int] | None = None
    finished: tuple[str, float] | None = None
    warning: str | None = None
    result: Any = None
    """What the command gave, its record as JSON."""
    failed: Failure | None = None
    place: int | None = None
    """With `failed`: the bundle it is about, where the job goes on without it."""
    states: tuple[State, ...] | None = None
    round: tuple[dict[str, float], dict[str, float]] | None = None
    """Seconds per call, and per queued image, by entry."""
    tensor: Tensor | None = None
    """One of those that `diagnose` asked for."""
    dropped: tuple[str, str] | None = None
    """An entry that could not be loaded or died, and why."""


def encode(event: Event) -> bytes:
    """Returns an event as a line."""
    return msgspec.json.encode(event) + b"\n"


def decode(line: bytes) -> Event:
    """Reads a line.

    Raises:
        msgspec.DecodeError: It is no event.
    """
    return msgspec.json.decode(line, type=Event)

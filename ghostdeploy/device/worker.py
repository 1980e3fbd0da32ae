"""Does one job in a process of its own: its engines may crash. `python -m … worker JOB`; events come out as lines."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from ghostdeploy.device.jobs import STOP, Event, Job, encode, failure
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.isolation import answers
from ghostdeploy.telemetry import silence_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.device.jobs import Command
    from ghostdeploy.device.proof import Timed
    from ghostdeploy.errors import GhostDeployError as Error


class _Lines(logging.Handler):
    """Sends progress and warnings as events; a `Listener`, too."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def send(self, event: Event) -> None:
        self._out.write(encode(event))
        self._out.flush()

    def emit(self, record: logging.LogRecord) -> None:
        self.send(Event(warning=record.getMessage()))

    def started(self, stage: str) -> None:
        self.send(Event(started=stage))

    def advanced(self, stage: str, done: int, total: int) -> None:
        self.send(Event(advanced=(stage, done, total)))

    def finished(self, stage: str, seconds: float) -> None:
        self.send(Event(finished=(stage, seconds)))


def main() -> int:
    """Does the job; an error of ours is an event, everything else a traceback and a code."""
    lines = _Lines(answers())
    log = logging.getLogger("ghostdeploy")
    log.addHandler(lines)
    log.propagate = False
    silence_process()
    try:
        found = _do(msgspec.json.decode(sys.argv[1], type=Job), lines)
    except GhostDeployError as error:
        lines.send(Event(failed=failure(error)))
    else:
        lines.send(Event(result=found))
    return 0


def _do(job: Job, lines: _Lines) -> Any:
    """Returns the record that a command gives."""
    works: dict[Command, Callable[[Job, _Lines], Any]] = {
        "verify": _verify,
        "prove": _prove,
        "eval": _evaluate,
        "bench": lambda job, lines: _time(job, lines).bench,
        "time": _time,
        "turns": _take_turns,
        "diagnose": _look_inside,
        "doctor": _examine,
    }
    return works[job.command](job, lines)


def _verify(job: Job, _: _Lines) -> Any:
    from ghostdeploy.deploy.prove.commands import verify

    return verify(job.bundles[0])


def _prove(job: Job, _: _Lines) -> Any:
    from ghostdeploy.device.proof import prove

    return prove(job.bundles[0])


def _time(job: Job, lines: _Lines) -> Timed:
    from ghostdeploy.deploy.measure.bench import bench
    from ghostdeploy.device.proof import Timed

    paths, blocks = [Path(one) for one in job.bundles], list[Any]()
    found = bench(paths, threads=job.threads, batch=job.batch, rounds=job.rounds, listener=lines, keep=blocks.append)
    return Timed(bench=found, blocks_ms=tuple(blocks))


def _take_turns(job: Job, lines: _Lines) -> int:
    """Measures entries in turn; returns the rounds that were asked for."""
    from ghostdeploy.deploy.measure.bench_worker import Job as Load
    from ghostdeploy.deploy.measure.turns import take_turns

    taken: list[int] = []

    def heard(calls: dict[str, float], queued: dict[str, float]) -> bool:
        taken.append(len(calls))
        lines.send(Event(round=(calls, queued)))
        return Path(STOP).exists()

    loads = {
        one.key: Load(path=one.path, threads=one.threads, batch=one.batch, profile=one.profile) for one in job.entries
    }
    take_turns(
        loads,
        rounds=job.rounds,
        queue=job.queue,
        on_round=heard,
        on_failure=lambda key, why: lines.send(Event(dropped=(key, why))),
        on_start=lambda key: lines.send(Event(started=key)),
    )
    return len(taken)


def _look_inside(job: Job, lines: _Lines) -> str:
    """Sends what the layers of a payload read, one tensor at a time; returns what computed it."""
    import numpy as np

    from ghostdeploy.bundle.folder import open_bundle
    from ghostdeploy.deploy.prove.layerwise.payload import Payload
    from ghostdeploy.device.jobs import Tensor

    payload = Payload(open_bundle(job.bundles[0]))
    own = payload.own(job.images)
    for name in payload.wanted:
        array = np.ascontiguousarray(own.pop(name), "<f4")
        lines.send(Event(tensor=Tensor(name=name, shape=array.shape, data=array.tobytes())))
    return payload.probe.engine


def _examine(_: Job, __: _Lines) -> Any:
    """Returns what `doctor` finds; whatever is installed there, what was sent exports nothing."""
    from ghostdeploy.deploy.measure.doctor import examine

    found = examine()
    states = tuple(msgspec.structs.replace(one, can_export=False) for one in found.targets)
    return msgspec.structs.replace(found, targets=states)


def _evaluate(job: Job, lines: _Lines) -> Any:
    from ghostdeploy.deploy.prove.commands import evaluate

    def note(path: Path, error: Error) -> None:
        lines.send(Event(failed=failure(error), place=job.bundles.index(str(path))))

    alone = len(job.bundles) == 1
    return evaluate(
        job.bundles,
        data=job.data,
        reference=job.reference,
        max_drop=job.max_drop,
        listener=lines,
        on_error=None if alone else note,
    )

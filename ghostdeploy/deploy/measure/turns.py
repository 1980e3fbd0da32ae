"""Measures entries in turn, each in its own process, as `bench` does; who asks decides after each round."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.deploy.measure.bench_process import Process, block_size, job_process
from ghostdeploy.errors import BundleError
from ghostdeploy.statistics import quantile

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.deploy.measure.bench_worker import Job

BLOCK_SECONDS = 0.1
"""About how long one block of calls takes."""


@dataclass(slots=True)
class Contestant:
    """One entry's process."""

    process: Process
    count: int
    """Calls of a block."""
    batch: int

    def call(self) -> float:
        """Returns the median seconds of a block of calls."""
        return quantile(self.process.ask("calls", self.count).seconds, 0.5)

    def queue(self) -> float:
        """Returns the seconds per image of a block of submissions."""
        return self.process.ask("queue", self.count).seconds[0] / (self.count * self.batch)


def take_turns(
    jobs: dict[str, Job],
    *,
    rounds: int,
    queue: bool,
    on_round: Callable[[dict[str, float], dict[str, float]], bool],
    on_failure: Callable[[str, str], None],
    on_start: Callable[[str], None],
) -> None:
    """Starts one process per entry and measures them in turn, the order turning by one from round to round.

    Args:
        jobs: By entry.
        rounds: Blocks of each, at most.
        queue: Measure submissions too.
        on_round: Called with seconds per call and per queued image by entry; returns whether that was enough.
        on_failure: Called with the entry that could not be loaded or died, and why; the others continue.
        on_start: Called with the entry that is being loaded.
    """
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for key, job in jobs.items():
            on_start(key)
            try:
                process = stack.enter_context(job_process(job))
                contestants[key] = Contestant(process, block_size(process, BLOCK_SECONDS), job.batch)
            except BundleError as error:
                on_failure(key, error.message)
        for number in range(rounds):
            calls, queued = _round(contestants, number, on_failure, queue=queue)
            if not contestants or on_round(calls, queued):
                return


def _round(
    contestants: dict[str, Contestant], number: int, on_failure: Callable[[str, str], None], *, queue: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns seconds per call and per queued image, in the order of the contestants; takes away the dead."""
    calls: dict[str, float] = {}
    queued: dict[str, float] = {}
    keys = list(contestants)
    place = number % len(keys) if keys else 0
    for key in (*keys[place:], *keys[:place]):
        try:
            calls[key] = contestants[key].call()
            if queue:
                queued[key] = contestants[key].queue()
        except BundleError as error:
            del contestants[key]
            on_failure(key, error.message)
    return {key: calls[key] for key in contestants}, {key: queued[key] for key in contestants if queue}

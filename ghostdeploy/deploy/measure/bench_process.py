"""The processes of a benchmark, and the rounds in which they take turns.

In a round each process runs a block of calls in turn while the others idle; the order rotates by one from round to
round, so that what disturbs the machine disturbs all alike.
"""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ghostdeploy.deploy.measure.bench_worker import Answer, Job, Loaded
from ghostdeploy.errors import BundleError
from ghostdeploy.isolation import child_command
from ghostdeploy.statistics import quantile
from ghostdeploy.waiting import measured_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from ghostdeploy.deploy.measure.testbed import Measuring
    from ghostdeploy.progress import Stages

T = TypeVar("T")

BLOCK_SECONDS = 0.1
"""About how long one block of calls takes."""
MOST_CALLS = 2000
FEWEST_CALLS = 3
_TAIL = 4096
"""Bytes at the end of a dead process's output that are searched for its last line."""


class Process:
    """A process that speaks the protocol of `bench_worker`.

    Args:
        words: Its command.
        name: What it measures, for messages.

    Raises:
        BundleError: It could not load its bundle, or it ended.
    """

    def __init__(self, words: Sequence[str], name: str) -> None:
        self.name = name
        # A pipe that nobody reads stops the process that writes more than it holds.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=self._said, env=measured_environment())
        try:
            self.loaded = self._read(Loaded)
        except BaseException:
            self.close()
            raise
        if self.loaded.error is not None:
            self.close()
            raise BundleError(self.loaded.error, hint=self.loaded.hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def ask(self, kind: str, count: int) -> Answer:
        """Returns the result of one order."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode({"kind": kind, "count": count}) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error
        return self._read(Answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _read(self, kind: type[T]) -> T:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return msgspec.json.decode(line, type=kind)

    def _died(self) -> BundleError:
        self._process.communicate()
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _TAIL))
        last = self._said.read().decode("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
        return BundleError(f"the process of {self.name} exited (code {self._process.returncode}): {last[0]}")


def bundle_process(path: str, *, threads: int, batch: int) -> Process:
    """Starts the process of a bundle; see `Process`."""
    return job_process(Job(path=path, threads=threads, batch=batch))


def job_process(job: Job) -> Process:
    """Starts the process of a bundle with its job; see `Process`."""
    return Process(
        child_command("ghostdeploy.deploy.measure.bench_worker", msgspec.json.encode(job).decode()), job.path
    )


def block_size(process: Measuring, seconds: float = BLOCK_SECONDS) -> int:
    """Returns the calls that take about `seconds`."""
    once = quantile(process.ask("calls", 5).seconds, 0.5)
    return max(FEWEST_CALLS, min(MOST_CALLS, math.ceil(seconds / once)))


def interleave(
    processes: Sequence[Measuring], counts: Sequence[int], rounds: int, stages: Stages
) -> list[list[list[float]]]:
    """Lets the processes take turns.

    Args:
        processes: All of a run.
        counts: Calls of a block, by process.
        rounds: Blocks of each.
        stages: Receives the progress.

    Returns:
        The seconds of each call, by process and round.
    """
    blocks: list[list[list[float]]] = [[] for _ in processes]
    for number in range(rounds):
        for place in range(len(processes)):
            index = (place + number) % len(processes)
            blocks[index].append(processes[index].ask("calls", counts[index]).seconds)
        stages.advance(number + 1, rounds)
    return blocks

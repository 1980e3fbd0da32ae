"""Latency of several bundles in one run, so that a noisy machine disturbs all of them alike.

Every bundle lives in a process of its own. A round asks each in turn for a block of calls, the others idle meanwhile;
the order turns by one from round to round. With m(b, r) the median of bundle b's block in round r,

    ratio(b)  = median over r of  m(b, r) / m(first, r)

and its 95 % interval is that of a median by order statistics: of R sorted values the k-th smallest and largest, with
the largest k for which P[Bin(R, ½) < k] ≤ 2.5 %. No distribution is assumed. The machine is called noisy when block
medians of one bundle vary (interquartile range over median) by more than `NOISY`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ghostdeploy.bundle import open_bundle
from ghostdeploy.deploy.bench_worker import Answer, Job, Loaded
from ghostdeploy.deploy.doctor import cpu_name, instruction_set, usable_cores
from ghostdeploy.deploy.stages import Stages
from ghostdeploy.deploy.statistics import median_interval, quantile
from ghostdeploy.errors import BundleError, UsageError
from ghostdeploy.manifest import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from ghostdeploy.deploy.stages import Listener

T = TypeVar("T")

BLOCK_SECONDS = 0.1
"""About how long one block of calls takes."""
MOST_CALLS = 2000
NOISY = 0.1
FEWEST_ROUNDS = 8
"""Below six rounds a median has no 95 % interval."""


class Measured(Record, frozen=True, kw_only=True):
    """One bundle."""

    path: str
    name: str
    target: str
    precision: str
    engine: str
    calls: int
    """Measured calls, one after the other."""
    median_ms: float
    p95_ms: float
    p99_ms: float
    ratio: float
    """Median latency over that of the first bundle."""
    ratio_ci95: tuple[float, float]
    first_result_ms: float
    """Loading, hash check and first call, in a fresh process after its imports."""
    images_per_second: float
    """Through `submit`, with two submissions per stream under way."""
    peak_bytes: int | None
    """Largest resident memory of the process; None where the system does not say."""
    size_bytes: int
    """Payload on disk."""
    spread: float
    """Interquartile range of the block medians over their median."""


class Bench(Record, frozen=True, kw_only=True):
    """One run."""

    machine: str
    threads: int
    batch: int
    rounds: int
    bundles: tuple[Measured, ...]
    noisy: bool
    """The figures of this run deserve no trust; the ratios deserve more than the times."""


def bench(
    paths: Sequence[Path], *, threads: int = 1, batch: int = 1, rounds: int = 20, listener: Listener | None = None
) -> Bench:
    """Measures bundles against the first of them.

    Args:
        paths: Bundle folders.
        threads: Threads of each engine; each process is kept on as many cores.
        batch: Images per call.
        rounds: Blocks of calls of each bundle.
        listener: Hears the progress.

    Raises:
        BundleError: A bundle cannot be loaded here, or its process died.
        UsageError: Too few rounds, or more threads than cores.
    """
    if rounds < FEWEST_ROUNDS:
        raise UsageError(f"rounds is {rounds}, expected at least {FEWEST_ROUNDS} for an interval of the median")
    if not 1 <= threads <= usable_cores():
        raise UsageError(f"threads is {threads}, expected 1 to {usable_cores()}, the cores that are usable here")
    cores = tuple(sorted(os.sched_getaffinity(0))[:threads]) if hasattr(os, "sched_getaffinity") else ()
    stages = Stages(listener)
    with ExitStack() as stack:
        workers = []
        for path in paths:
            open_bundle(path)  # what is damaged is said before any process starts
        with stages.stage("load"):
            for path in paths:
                job = Job(path=str(path), threads=threads, batch=batch, cores=cores)
                workers.append(stack.enter_context(_Worker(job)))
        with stages.stage("measure"):
            counts = [_block_size(worker) for worker in workers]
            blocks = _rounds(workers, counts, rounds, stages)
            queued = [worker.ask("queue", count) for worker, count in zip(workers, counts, strict=True)]
    first = [quantile(block, 0.5) for block in blocks[0]]
    found = tuple(
        _measured(worker, block, first, count * batch / answer.seconds[0], answer.peak_bytes)
        for worker, block, count, answer in zip(workers, blocks, counts, queued, strict=True)
    )
    return Bench(
        machine=f"{cpu_name()}, {instruction_set()}",
        threads=threads,
        batch=batch,
        rounds=rounds,
        bundles=found,
        noisy=any(one.spread > NOISY for one in found),
    )


def _rounds(workers: list[_Worker], counts: list[int], rounds: int, stages: Stages) -> list[list[list[float]]]:
    """Returns the seconds of each call, by bundle and round."""
    blocks: list[list[list[float]]] = [[] for _ in workers]
    for number in range(rounds):
        for place in range(len(workers)):
            index = (place + number) % len(workers)
            blocks[index].append(workers[index].ask("calls", counts[index]).seconds)
        stages.advance(number + 1, rounds)
    return blocks


class _Worker:
    """The process of one bundle."""

    def __init__(self, job: Job) -> None:
        self.path = Path(job.path)
        words = [sys.executable, "-m", "ghostdeploy.deploy.bench_worker", msgspec.json.encode(job).decode()]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.loaded = self._read(Loaded)
        if self.loaded.error is not None:
            self.close()
            raise BundleError(self.loaded.error, hint=self.loaded.hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def ask(self, kind: str, count: int) -> Answer:
        """Returns what one order gave."""
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

    def _read(self, kind: type[T]) -> T:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return msgspec.json.decode(line, type=kind)

    def _died(self) -> BundleError:
        _, said = self._process.communicate()
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["without a word"]
        return BundleError(f"the process of {self.path} ended (exit {self._process.returncode}): {last[0]}")


def _block_size(worker: _Worker) -> int:
    """Returns the calls that take about `BLOCK_SECONDS`."""
    once = quantile(worker.ask("calls", 5).seconds, 0.5)
    return max(3, min(MOST_CALLS, math.ceil(BLOCK_SECONDS / once)))


def _measured(
    worker: _Worker, blocks: list[list[float]], first: list[float], images_per_second: float, peak_bytes: int | None
) -> Measured:
    bundle = open_bundle(worker.path, check_hashes=False)
    calls = [seconds for block in blocks for seconds in block]
    medians = [quantile(block, 0.5) for block in blocks]
    ratios = [ours / theirs for ours, theirs in zip(medians, first, strict=True)]
    return Measured(
        path=str(worker.path),
        name=bundle.manifest.name,
        target=bundle.manifest.target,
        precision=bundle.manifest.precision,
        engine=f"{worker.loaded.info['engine']} {worker.loaded.info['engine_version']}",
        calls=len(calls),
        median_ms=1e3 * quantile(calls, 0.5),
        p95_ms=1e3 * quantile(calls, 0.95),
        p99_ms=1e3 * quantile(calls, 0.99),
        ratio=quantile(ratios, 0.5),
        ratio_ci95=median_interval(ratios),
        first_result_ms=1e3 * worker.loaded.seconds,
        images_per_second=images_per_second,
        peak_bytes=peak_bytes,
        size_bytes=bundle.size,
        spread=(quantile(medians, 0.75) - quantile(medians, 0.25)) / quantile(medians, 0.5),
    )

"""Latency of several bundles in one run, so that a noisy machine disturbs all of them alike.

Every bundle lives in a process of its own, see `bench_process`. With m(b, r) the median of bundle b's block in round r,

    ratio(b)  = median over r of  m(b, r) / m(baseline of b, r)

and its 95 % interval is that of a median by order statistics: of R sorted values the k-th smallest and largest, with
the largest k for which P[Bin(R, ½) < k] ≤ 2.5 %. No distribution is assumed. The machine is called noisy when block
medians of one bundle vary (interquartile range over median) by more than `NOISY`.

What the machine could do at best stands beside it, see `roofline`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ghostdeploy.bundle import open_bundle
from ghostdeploy.deploy.bench_process import block_size, bundle_process, interleave
from ghostdeploy.deploy.doctor import cpu_name, instruction_set, usable_cores
from ghostdeploy.deploy.machine_rates import Rates, measure_rates
from ghostdeploy.deploy.roofline import Limit, limit_of
from ghostdeploy.deploy.stages import Stages
from ghostdeploy.deploy.statistics import median_interval, quantile
from ghostdeploy.errors import UsageError
from ghostdeploy.manifest import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ghostdeploy.deploy.bench_process import Process
    from ghostdeploy.deploy.stages import Listener

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
    baseline: str
    """Name of the bundle that the ratio is to."""
    ratio: float
    """Median latency over that of the baseline."""
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
    limit: Limit
    """What the machine could do at best with float arithmetic."""
    limit_share: float
    """That limit over the median latency."""


class Bench(Record, frozen=True, kw_only=True):
    """One run."""

    machine: str
    threads: int
    batch: int
    rounds: int
    rates: Rates
    """What the machine can do with as many threads."""
    bundles: tuple[Measured, ...]
    noisy: bool
    """The figures of this run deserve no trust; the ratios deserve more than the times."""


def bench(
    paths: Sequence[Path],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 20,
    baselines: Sequence[int] = (),
    listener: Listener | None = None,
) -> Bench:
    """Measures bundles against each other.

    Args:
        paths: Bundle folders.
        threads: Threads of each engine; each process is kept on as many cores.
        batch: Images per call.
        rounds: Blocks of calls of each bundle.
        baselines: For each path the index of the one that its ratio is to; none given is the first for all.
        listener: Hears the progress.

    Raises:
        BundleError: A bundle cannot be loaded here, or its process died.
        UsageError: Too few rounds, or more threads than cores.
    """
    require_sense(threads=threads, rounds=rounds)
    stages = Stages(listener)
    with ExitStack() as stack:
        processes = []
        for path in paths:
            open_bundle(path)  # what is damaged is said before any process starts
        with stages.stage("load"):
            for path in paths:
                processes.append(stack.enter_context(bundle_process(str(path), threads=threads, batch=batch)))
        with stages.stage("measure"):
            counts = [block_size(process) for process in processes]
            blocks = interleave(processes, counts, rounds, stages)
            queued = [process.ask("queue", count) for process, count in zip(processes, counts, strict=True)]
    with stages.stage("measure the machine"):
        rates = measure_rates(threads)
    medians = [[quantile(block, 0.5) for block in own] for own in blocks]
    names = [open_bundle(path, check_hashes=False).manifest.name for path in paths]
    found = []
    for index, path in enumerate(paths):
        base = baselines[index] if baselines else 0
        ratios = [own / other for own, other in zip(medians[index], medians[base], strict=True)]
        answer = queued[index]
        found.append(
            _measured(
                path,
                processes[index],
                calls=[seconds for block in blocks[index] for seconds in block],
                medians=medians[index],
                baseline=names[base],
                ratios=ratios,
                images_per_second=counts[index] * batch / answer.seconds[0],
                peak_bytes=answer.peak_bytes,
                limit=limit_of(path, batch, rates),
            )
        )
    return Bench(
        machine=f"{cpu_name()}, {instruction_set()}",
        threads=threads,
        batch=batch,
        rounds=rounds,
        rates=rates,
        bundles=tuple(found),
        noisy=any(one.spread > NOISY for one in found),
    )


def require_sense(*, threads: int, rounds: int) -> None:
    """Raises `UsageError` for too few rounds, or more threads than cores."""
    if rounds < FEWEST_ROUNDS:
        raise UsageError(f"rounds is {rounds}, expected at least {FEWEST_ROUNDS} for an interval of the median")
    if not 1 <= threads <= usable_cores():
        raise UsageError(f"threads is {threads}, expected 1 to {usable_cores()}, the cores that are usable here")


def _measured(
    path: Path,
    process: Process,
    *,
    calls: list[float],
    medians: list[float],
    baseline: str,
    ratios: list[float],
    images_per_second: float,
    peak_bytes: int | None,
    limit: Limit,
) -> Measured:
    bundle = open_bundle(path, check_hashes=False)
    median_ms = 1e3 * quantile(calls, 0.5)
    return Measured(
        path=str(path),
        name=bundle.manifest.name,
        target=bundle.manifest.target,
        precision=bundle.manifest.precision,
        engine=f"{process.loaded.info['engine']} {process.loaded.info['engine_version']}",
        calls=len(calls),
        median_ms=median_ms,
        p95_ms=1e3 * quantile(calls, 0.95),
        p99_ms=1e3 * quantile(calls, 0.99),
        baseline=baseline,
        ratio=quantile(ratios, 0.5),
        ratio_ci95=median_interval(ratios),
        first_result_ms=1e3 * process.loaded.seconds,
        images_per_second=images_per_second,
        peak_bytes=peak_bytes,
        size_bytes=bundle.size,
        spread=(quantile(medians, 0.75) - quantile(medians, 0.25)) / quantile(medians, 0.5),
        limit=limit,
        limit_share=limit.limit_ms / median_ms,
    )

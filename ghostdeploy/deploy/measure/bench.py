"""Latency of several bundles in one run, so that noise affects all of them alike.

Every bundle runs in its own process, see `bench_process`. With m(b, r) the median of bundle b's block in round r,

    ratio(b)  = median over r of  m(b, r) / m(baseline of b, r)

and its 95 % interval is that of a median by order statistics: of R sorted values the k-th smallest and largest, with
the largest k for which P[Bin(R, ½) < k] ≤ 2.5 %. No distribution is assumed. The machine is called noisy when block
medians of one bundle vary (interquartile range over median) by more than `NOISY`.

For the best that the machine could do, see `roofline`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.deploy.measure.bench_process import block_size, interleave
from ghostdeploy.deploy.measure.machine_rates import Rates  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.deploy.measure.roofline import Limit, limit_of
from ghostdeploy.deploy.measure.testbed import Here
from ghostdeploy.errors import UnsupportedHardware, UsageError
from ghostdeploy.progress import Stages
from ghostdeploy.runtimes import tell_failed
from ghostdeploy.statistics import median_interval, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.measure.bench_worker import Answer, Loaded
    from ghostdeploy.deploy.measure.testbed import Testbed
    from ghostdeploy.progress import Listener

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
    """Largest resident memory of the process; None where the system does not report it."""
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
    keep: Callable[[tuple[tuple[float, ...], ...]], object] | None = None,
    testbed: Testbed | None = None,
) -> Bench:
    """Measures bundles against each other.

    Args:
        paths: Bundle folders.
        threads: Threads of each engine; each process is kept on as many cores.
        batch: Images per call.
        rounds: Blocks of calls of each bundle.
        baselines: For each path the index of the one that its ratio is to; none given is the first for all.
        listener: Receives the progress.
        keep: Called for each bundle with the milliseconds of its calls, by round.
        testbed: Where; None is this machine.

    Raises:
        BundleError: A bundle cannot be loaded here, or its process died.
        UsageError: Too few rounds, or more threads than cores.
    """
    testbed = testbed or Here()
    require_sense(threads=threads, rounds=rounds, testbed=testbed)
    stages = Stages(listener)
    taken = _take(paths, testbed, threads=threads, batch=batch, rounds=rounds, stages=stages)
    with stages.stage("measure the machine"):
        rates = testbed.rates(threads)
    found = []
    for index, one in enumerate(taken):
        base = taken[baselines[index] if baselines else 0]
        found.append(_measured(one, base, limit=limit_of(one.path, batch, rates), batch=batch))
        if keep is not None:
            keep(tuple(tuple(round(1e3 * seconds, 4) for seconds in block) for block in one.blocks))
    return Bench(
        machine=testbed.machine,
        threads=threads,
        batch=batch,
        rounds=rounds,
        rates=rates,
        bundles=tuple(found),
        noisy=any(one.spread > NOISY for one in found),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What the process of one bundle gave."""

    path: Path
    loaded: Loaded
    blocks: list[list[float]]
    """Seconds of each call, by round."""
    count: int
    """Calls of the queue."""
    queued: Answer

    @property
    def medians(self) -> list[float]:
        return [quantile(block, 0.5) for block in self.blocks]


def _take(
    paths: Sequence[Path], testbed: Testbed, *, threads: int, batch: int, rounds: int, stages: Stages
) -> list[_Taken]:
    for path in paths:
        bundle = open_bundle(path)  # damage is reported before any process starts
        require_latency(bundle)
        tell_failed(bundle)
    with ExitStack() as stack:
        processes = []
        with stages.stage("load"):
            for path in paths:
                processes.append(stack.enter_context(testbed.start(str(path), threads=threads, batch=batch)))
        with stages.stage("measure"):
            counts = [block_size(process) for process in processes]
            blocks = interleave(processes, counts, rounds, stages)
            queued = [process.ask("queue", count) for process, count in zip(processes, counts, strict=True)]
    return [
        _Taken(path=path, loaded=process.loaded, blocks=own, count=count, queued=answer)
        for path, process, own, count, answer in zip(paths, processes, blocks, counts, queued, strict=True)
    ]


def require_latency(bundle: Bundle) -> None:
    """Raises `UnsupportedHardware` for a bundle whose runtime is a simulator: its time says nothing of the device."""
    row = targets.find(bundle.manifest.target)
    if row.simulator is not None:
        raise UnsupportedHardware(
            f"{bundle.path} runs on a simulator here, which has no latency to measure",
            hint=f"measure it on a {row.device}; the vendor's estimates are in: ghostdeploy inspect {bundle.path}",
        )


def require_sense(*, threads: int, rounds: int, testbed: Testbed | None = None) -> None:
    """Raises `UsageError` for too few rounds, or more threads than cores."""
    require_rounds(rounds)
    most = (testbed or Here()).threads
    if not 1 <= threads <= most:
        raise UsageError(f"threads is {threads}, expected 1 to {most}, the usable cores")


def require_rounds(rounds: int) -> None:
    """Raises `UsageError` for too few rounds."""
    if rounds < FEWEST_ROUNDS:
        raise UsageError(f"rounds is {rounds}, expected at least {FEWEST_ROUNDS} for an interval of the median")


def _measured(one: _Taken, base: _Taken, *, limit: Limit, batch: int) -> Measured:
    bundle = open_bundle(one.path, check_hashes=False)
    calls, medians = [seconds for block in one.blocks for seconds in block], one.medians
    ratios = [own / other for own, other in zip(medians, base.medians, strict=True)]
    median_ms = 1e3 * quantile(calls, 0.5)
    return Measured(
        path=str(one.path),
        name=bundle.manifest.name,
        target=bundle.manifest.target,
        precision=bundle.manifest.precision,
        engine=f"{one.loaded.info['engine']} {one.loaded.info['engine_version']}",
        calls=len(calls),
        median_ms=median_ms,
        p95_ms=1e3 * quantile(calls, 0.95),
        p99_ms=1e3 * quantile(calls, 0.99),
        baseline=open_bundle(base.path, check_hashes=False).manifest.name,
        ratio=quantile(ratios, 0.5),
        ratio_ci95=median_interval(ratios),
        first_result_ms=1e3 * one.loaded.seconds,
        images_per_second=one.count * batch / one.queued.seconds[0],
        peak_bytes=one.queued.peak_bytes,
        size_bytes=bundle.size,
        spread=(quantile(medians, 0.75) - quantile(medians, 0.25)) / quantile(medians, 0.5),
        limit=limit,
        limit_share=limit.limit_ms / median_ms,
    )

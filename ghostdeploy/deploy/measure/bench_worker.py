"""One bundle in its own process, which measures on request; its only argument is the JOB.

It loads the bundle and then replies to each line on standard input with one on standard output. Nothing else runs in
the process, so its peak memory is the bundle's, and an engine's threads cannot disturb those of another.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec
import numpy as np
from msgspec import field

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.isolation import answers
from ghostdeploy.machine import choose_cores
from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    from ghostdeploy.runtimes import Runtime

WARM_SECONDS = 0.3


class Job(Record, frozen=True, kw_only=True):
    """What a worker is to load."""

    path: str
    threads: int
    batch: int
    profile: Literal["latency", "throughput"] = "latency"
    """See `ghostdeploy.runtimes.load`."""


class Order(Record, frozen=True, kw_only=True):
    """One measurement."""

    kind: Literal["calls", "queue"]
    """`calls`: one after the other. `queue`: submitted, as many at a time as the queue takes."""
    count: int


class Loaded(Record, frozen=True, kw_only=True):
    """The first answer."""

    seconds: float = 0.0
    """From the request to the first result."""
    info: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    """Why it could not be loaded."""
    hint: str | None = None


class Answer(Record, frozen=True, kw_only=True):
    """What one order gave."""

    seconds: list[float]
    """Of each call; of all submissions together."""
    peak_bytes: int | None


def main() -> int:
    """Runs until standard input ends."""
    out = answers()
    job = msgspec.json.decode(sys.argv[1], type=Job)
    if cores := choose_cores(job.threads):  # none where the system cannot report them
        os.sched_setaffinity(0, cores)
    start = time.perf_counter()
    try:
        runtime = load(job.path, threads=job.threads, profile=job.profile)
    except GhostDeployError as error:
        _say(out, Loaded(error=error.message, hint=error.hint))
        return 0
    with runtime:
        inputs = example(runtime, job)
        outputs = runtime.infer(inputs)
        seconds = time.perf_counter() - start
        if broken := [name for name, array in outputs.items() if not np.isfinite(array).all()]:
            _say(
                out, Loaded(error=f"{job.path} gives NaN or infinity in {', '.join(broken)}", hint="ghostdeploy verify")
            )
            return 0
        _say(out, Loaded(seconds=seconds, info=runtime.info()))
        _warm(runtime, inputs)
        for line in sys.stdin.buffer:
            order = msgspec.json.decode(line, type=Order)
            measure = _calls if order.kind == "calls" else _queue
            found = measure(runtime, inputs, order.count)
            _say(out, Answer(seconds=found, peak_bytes=peak_bytes()))
    return 0


def peak_bytes() -> int | None:
    """Returns the largest resident memory of this process so far, None where the system does not report it.

    Linux's `ru_maxrss` starts with that of the process which started this one, `VmHWM` does not.
    """
    if sys.platform == "win32":
        return None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return None


def example(runtime: Runtime, job: Job) -> dict[str, Any]:
    """Returns inputs of the bundle's own shape.

    Of images seeded noise, because zeros are faster on some kernels; of ready inputs the golden ones: a network may
    divide by them.
    """
    bundle, batch = open_bundle(job.path, check_hashes=False), job.batch
    if bundle.manifest.preprocess.ready:
        rows = np.arange(batch)
        return {name: array[rows % len(array)] for name, array in bundle.golden()[0].items()}
    rng = np.random.default_rng(0)
    found = {}
    for spec in runtime.info()["inputs"]:
        shape = [batch, *(1 if size is None else size for size in spec["shape"][1:])]
        values = rng.integers(0, 256, shape) if spec["dtype"] == "uint8" else rng.standard_normal(shape)
        found[spec["name"]] = values.astype(spec["dtype"])
    return found


def _warm(runtime: Runtime, inputs: dict[str, Any]) -> None:
    end = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < end:
        runtime.infer(inputs)


def _calls(runtime: Runtime, inputs: dict[str, Any], count: int) -> list[float]:
    found = []
    for _ in range(count):
        start = time.perf_counter()
        runtime.infer(inputs)
        found.append(time.perf_counter() - start)
    return found


def _queue(runtime: Runtime, inputs: dict[str, Any], count: int) -> list[float]:
    depth = 2 * int(runtime.info()["streams"])
    waiting: deque[Any] = deque()
    start = time.perf_counter()
    for _ in range(count):
        if len(waiting) == depth:
            waiting.popleft().result()
        waiting.append(runtime.submit(inputs))
    for future in waiting:
        future.result()
    return [time.perf_counter() - start]


def _say(out: BinaryIO, answer: Record) -> None:
    out.write(msgspec.json.encode(answer) + b"\n")
    out.flush()

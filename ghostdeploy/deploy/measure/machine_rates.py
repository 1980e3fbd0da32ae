"""The peak rates of this machine, measured in a process with two arguments: THREADS CORE,….

    GEMM rate        n³ / t of a float32 n × n product, n = 512: 3 MB, in the caches of a core or beside it
    bandwidth(s)     3 s/3 / t of a = b + c on float32 arrays of s bytes together, each thread on its own share

The best of many repetitions counts: a limit is what can happen, not what usually does. Bytes are counted as in STREAM,
two reads and a write. Sizes go from a core's cache to four times the last-level cache. It runs in its own process,
because the matrix library takes its thread count from the environment when it is loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.isolation import answers, child_command
from ghostdeploy.machine import choose_cores
from ghostdeploy.waiting import measured_environment

if TYPE_CHECKING:
    from collections.abc import Callable

GEMM_SIZE = 512
SET_SIZES = (1 << 18, 1 << 20, 1 << 22, 1 << 24)
"""Bytes of the arrays that stay in some cache."""
_LAST_LEVEL = 32 << 20
_MOST = 1 << 30
_MOVED = 1 << 29
_GEMM_SECONDS, _STREAM_SECONDS = 0.4, 0.15
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Bandwidth(Record, frozen=True, kw_only=True):
    """Bytes per second while as many bytes are in use."""

    set_bytes: int
    bytes_per_second: float


class Rates(Record, frozen=True, kw_only=True):
    """What the machine does at best with a number of threads."""

    threads: int
    macs_per_second: float
    """Float32 multiply-accumulates."""
    bandwidths: tuple[Bandwidth, ...]
    """By rising size; the last is memory, well beyond every cache."""

    def bandwidth(self, size: int) -> float:
        """Returns bytes per second for a set of `size` bytes: of the largest measured one that is not larger."""
        fitting = [one for one in self.bandwidths if one.set_bytes <= size]
        return (fitting or self.bandwidths[:1])[-1].bytes_per_second


def measure_rates(threads: int) -> Rates:
    """Measures in a process with so many threads, kept on as many cores; takes about two seconds."""
    cores = ",".join(map(str, choose_cores(threads)))
    done = subprocess.run(
        child_command("ghostdeploy.deploy.measure.machine_rates", str(threads), cores),
        env=measured_environment(**dict.fromkeys(_THREAD_VARIABLES, str(threads))),
        stdout=subprocess.PIPE,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Rates)


def main() -> int:
    """Measures and prints the record."""
    out = answers()
    threads, cores = int(sys.argv[1]), [int(core) for core in sys.argv[2].split(",") if core]
    if cores:
        os.sched_setaffinity(0, cores)
    found: list[Bandwidth] = []
    for size in (min(_MOST, 4 * last_level_cache()), *reversed(SET_SIZES)):
        rate = stream_rate(size, threads)
        if found:  # what a large set can do a small one can
            rate = max(rate, found[-1].bytes_per_second)
        found.append(Bandwidth(set_bytes=size, bytes_per_second=rate))
    rates = Rates(threads=threads, macs_per_second=gemm_rate(), bandwidths=tuple(reversed(found)))
    out.write(msgspec.json.encode(rates))
    out.flush()
    return 0


def gemm_rate(size: int = GEMM_SIZE) -> float:
    """Returns float32 multiply-accumulates per second of NumPy's matrix library."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    out = np.empty_like(left)
    return size**3 / _best(lambda: np.matmul(left, right, out=out), _GEMM_SECONDS)


def stream_rate(size: int, threads: int) -> float:
    """Returns bytes per second of a = b + c.

    Args:
        size: Bytes of all arrays of all threads.
        threads: Each adds its own three arrays.
    """
    length = max(1, size // (3 * 4 * threads))
    sets = [tuple(np.ones(length, np.float32) for _ in range(3)) for _ in range(threads)]
    calls = max(1, _MOVED // size)  # starting a thread must not be what is measured

    def add(arrays: tuple[np.ndarray, ...]) -> None:
        out, left, right = arrays
        for _ in range(calls):
            np.add(left, right, out=out)

    def once() -> None:
        others = [threading.Thread(target=add, args=(arrays,)) for arrays in sets[1:]]
        for one in others:
            one.start()
        add(sets[0])
        for one in others:
            one.join()

    return 3 * 4 * length * threads * calls / _best(once, _STREAM_SECONDS)


def last_level_cache() -> int:
    """Returns the bytes of the largest cache of the first core; a guess where the system does not report it."""
    units, sizes = {"K": 1 << 10, "M": 1 << 20}, []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text("ascii").strip()
        if text[:-1].isdigit() and text[-1] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    return max(sizes, default=_LAST_LEVEL)


def _best(call: Callable[[], object], seconds: float) -> float:
    """Returns the shortest time of a call, of at least three and for so many seconds."""
    call()
    end, times = time.perf_counter() + seconds, list[float]()
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)

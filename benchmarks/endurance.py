"""Many calls: from eight threads the same bits as one by one, and no growth of memory.

    python benchmarks/endurance.py BUNDLE… [--threads 8] [--calls 1000] [--long 100000] [--limit 5] [--json]

Each bundle is run in a process of its own. Resident memory is read after a tenth of the calls, when pools and buffers
have their size, and after all of them; what the C library keeps for later is given back first, where it is glibc.
`submit` goes through a queue that is kept full. Exit code 1 when an answer differed or the memory grew by more than
`--limit` megabytes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ghostdeploy.runtimes import Runtime


def resident() -> float:
    """Returns the resident memory of this process in megabytes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def examples(runtime: Runtime, count: int) -> list[NDArray[Any]]:
    """Returns `count` different inputs of one image."""
    spec = runtime.info()["inputs"][0]
    shape = [size or 1 for size in spec["shape"]]
    rng = np.random.default_rng(0)
    if spec["dtype"] == "uint8":
        return [rng.integers(0, 256, shape, np.uint8) for _ in range(count)]
    return [rng.normal(size=shape).astype(spec["dtype"]) for _ in range(count)]


def different(runtime: Runtime, threads: int, calls: int) -> int:
    """Returns how many of `threads` × `calls` answers are not the bits of the serial ones."""
    batches = examples(runtime, threads)
    expected = [runtime(batch) for batch in batches]

    def work(first: int) -> int:
        order = [(first + call) % threads for call in range(calls)]
        return sum(not np.array_equal(runtime(batches[i]), expected[i]) for i in order)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def growth(call: Callable[[], Any], calls: int) -> float:
    """Returns by how many megabytes the process grew in the last nine tenths of the calls."""
    for _ in range(calls // 10):
        call()
    before = resident()
    for _ in range(calls - calls // 10):
        call()
    return resident() - before


def examine(path: Path, *, threads: int, calls: int, long: int) -> dict[str, Any]:
    """Measures one bundle in this process."""
    with load(path, threads=2) as runtime:
        batch = examples(runtime, 1)[0]
        pending: deque[Any] = deque()

        def submit() -> None:
            pending.append(runtime.submit(batch))
            if len(pending) > runtime.info()["queue"]:
                pending.popleft().result()

        return {
            "bundle": runtime.info()["name"],
            "different": different(runtime, threads, calls),
            "answers": threads * calls,
            "calls": long,
            "grown_mb": growth(lambda: runtime(batch), long),
            "submit_grown_mb": growth(submit, long),
        }


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="BUNDLE...", type=click.Path(exists=True, path_type=Path))
@click.option("--threads", default=8, show_default=True, help="Threads that call at the same time.")
@click.option("--calls", default=1000, show_default=True, help="Calls of each thread.")
@click.option("--long", default=100_000, show_default=True, help="Calls over which the memory is watched.")
@click.option("--limit", default=5.0, show_default=True, help="Megabytes that the process may grow by.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def main(paths: tuple[Path, ...], *, threads: int, calls: int, long: int, limit: float, as_json: bool) -> None:
    """Compares threads with serial calls, and watches the memory."""
    if len(paths) > 1:
        options = [f"--threads={threads}", f"--calls={calls}", f"--long={long}", f"--limit={limit}"]
        options += ["--json"] if as_json else []
        codes = [subprocess.run([sys.executable, __file__, path, *options], check=False).returncode for path in paths]
        sys.exit(max(codes))
    found = examine(paths[0], threads=threads, calls=calls, long=long)
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo(
            f"{found['bundle']}: {found['different']} of {found['answers']} answers from {threads} threads differ; "
            f"{long} calls grew by {found['grown_mb']:.2f} MB, {long} submissions by {found['submit_grown_mb']:.2f} MB"
        )
    sys.exit(int(found["different"] > 0 or max(found["grown_mb"], found["submit_grown_mb"]) > limit))


if __name__ == "__main__":
    main()

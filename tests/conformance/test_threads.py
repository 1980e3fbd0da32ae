"""One runtime may be called from many threads, and a future gives what the call gives."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.errors import InputError, UsageError

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
THREADS, CALLS = 8, 1000 if MANY else 200
FLAT = 8 << 20
"""Bytes that a process may grow by in all calls after the first hundred of each thread."""


def resident():
    """Returns the memory of this process in bytes; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


@pytest.mark.parametrize("profile", ["latency", "throughput"])
def test_eight_threads_give_the_bits_of_one_thread_and_memory_stays_flat(path, profile, tiny):
    batches = [tiny.example(1 + seed % 4, seed=seed)["input"] for seed in range(THREADS)]
    with gd.load(path, threads=2, profile=profile) as opened:
        expected = [opened(batch) for batch in batches]
        start = threading.Barrier(THREADS)

        def work(first, calls):
            start.wait()
            order = [(first + call) % THREADS for call in range(calls)]
            return sum(np.array_equal(opened(batches[i]), expected[i]) for i in order)

        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(work, range(THREADS), [100] * THREADS)) == [100] * THREADS
            before = resident()
            assert list(pool.map(work, range(THREADS), [CALLS] * THREADS)) == [CALLS] * THREADS
        assert resident() - before < FLAT


@pytest.mark.parametrize("profile", ["latency", "throughput"])
def test_futures_give_what_calls_give_even_if_the_memory_is_reused(path, profile, tiny):
    batches = [tiny.example(1 + seed % 5, seed=seed)["input"] for seed in range(20)]
    with gd.load(path, threads=2, profile=profile) as opened:
        expected = [opened(batch) for batch in batches]
        futures = []
        for batch in batches:
            mine = batch.copy()
            futures.append(opened.submit(mine))
            mine[:] = np.nan
        found = [future.result(60) for future in futures]

    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_wrong_input_comes_out_of_the_future(runtime, tiny):
    with pytest.raises(InputError, match="float64"):
        runtime.submit(tiny.example(1)["input"].astype("float64")).result(60)


def test_no_thread_is_started_before_the_first_future(path, tiny):
    before = set(threading.enumerate())
    with gd.load(path, threads=1) as opened:
        opened(tiny.example(4)["input"])
        assert set(threading.enumerate()) <= before


def test_close_waits_for_what_was_submitted(path, tiny):
    batch = tiny.example(4)["input"]
    opened = gd.load(path, threads=1)
    expected = opened(batch)
    futures = [opened.submit(batch) for _ in range(50)]

    opened.close()

    assert all(future.done() for future in futures)
    assert all(np.array_equal(future.result(), expected) for future in futures)


def test_closing_while_others_call_gives_results_or_a_usage_error_and_nothing_else(path, tiny):
    batch = tiny.example(1)["input"]
    opened = gd.load(path, threads=1)
    expected = opened(batch)
    start = threading.Barrier(THREADS + 1)

    def work(_):
        start.wait()
        for _ in range(100_000):
            try:
                if not np.array_equal(opened(batch), expected):
                    return "wrong"
            except UsageError:
                return "refused"
        return "never refused"

    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(work, n) for n in range(THREADS)]
        start.wait()
        opened.close()
        assert {future.result(60) for future in waiting} == {"refused"}

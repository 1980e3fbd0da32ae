"""Submissions on every engine: bounded, identical to calls, and without a way to wait for themselves."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import QueueFull, UsageError

THREADS = 8
PROFILES = ("latency", "throughput")
pytestmark = pytest.mark.parametrize("profile", PROFILES)


def images(path, count, *, seed=0):
    """A batch of the bundle's own golden images."""
    golden = open_bundle(path).golden()[0]["input"]
    return golden[np.random.default_rng(seed).integers(0, len(golden), count)]


def opened(path, profile, **options):
    return gd.load(path, **{"threads": 2, "profile": profile, **options})


def test_submitted_from_eight_threads_through_a_narrow_queue_gives_the_bits_of_calls(path, profile):
    batches = [images(path, 1 + seed % 4, seed=seed) for seed in range(THREADS)]
    with opened(path, profile, queue=3) as runtime, ThreadPoolExecutor(THREADS) as pool:
        expected = [runtime(batch) for batch in batches]

        def work(first):
            order = [(first + call) % THREADS for call in range(50)]
            return all(np.array_equal(runtime.submit(batches[i]).result(60), expected[i]) for i in order)

        assert all(pool.map(work, range(THREADS)))


def test_calls_and_submissions_at_the_same_time_give_the_same_bits(path, profile):
    batch = images(path, 4)
    with opened(path, profile) as runtime, ThreadPoolExecutor(2) as pool:
        expected = runtime(batch)
        calls = [pool.submit(runtime, batch) for _ in range(100)]
        futures = [runtime.submit(batch) for _ in range(100)]
        assert all(np.array_equal(one.result(60), expected) for one in (*calls, *futures))


def test_a_full_queue_is_refused_with_its_size_and_takes_more_later(path, profile):
    batch = images(path, 64)
    accepted = []
    with opened(path, profile, queue=2) as runtime:
        assert runtime.info()["queue"] == 2
        expected = runtime(batch)

        def flood():
            while len(accepted) < 100_000:
                accepted.append(runtime.submit(batch, timeout=0))

        with pytest.raises(QueueFull, match=r"was full: 2 submissions") as caught:
            flood()
        assert np.array_equal(runtime.submit(batch, timeout=60).result(60), expected)
        assert all(np.array_equal(future.result(60), expected) for future in accepted)

    assert str(path) in caught.value.message
    assert "larger queue" in caught.value.hint


def test_a_chain_of_callbacks_through_a_queue_of_one_does_not_hang(path, profile):
    batch, left, end = images(path, 2), iter(range(100)), threading.Event()
    with opened(path, profile, queue=1) as runtime:
        expected = runtime(batch)
        wrong = []

        def again(future):
            if not np.array_equal(future.result(), expected) or not np.array_equal(runtime(batch), expected):
                wrong.append(future)
            if next(left, None) is None:
                end.set()
            else:
                runtime.submit(batch).add_done_callback(again)

        runtime.submit(batch).add_done_callback(again)
        assert end.wait(60)

    assert wrong == []


def test_a_callback_may_close_the_runtime(path, profile):
    for _ in range(10):
        runtime, done = opened(path, profile), threading.Event()
        futures = [runtime.submit(images(path, 1)) for _ in range(5)]
        futures[-1].add_done_callback(lambda _, close=runtime.close, done=done: (close(), done.set()))

        assert done.wait(60)
        assert all(future.done() for future in futures)
        with pytest.raises(UsageError, match="was closed"):
            runtime.submit(images(path, 1), timeout=0)


def test_closing_while_others_submit_gives_results_or_a_usage_error_and_nothing_else(path, profile):
    batch = images(path, 1)
    runtime = opened(path, profile, queue=2)
    expected = runtime(batch)
    start = threading.Barrier(THREADS + 1)

    def work(_):
        futures = []
        start.wait()
        try:
            while True:
                futures.append(runtime.submit(batch))
        except UsageError as error:
            return type(error) is UsageError and all(np.array_equal(f.result(60), expected) for f in futures)

    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(work, n) for n in range(THREADS)]
        start.wait()
        time.sleep(0.02)
        runtime.close()
        assert all(future.result(60) for future in waiting)


def test_what_was_cancelled_is_skipped_and_the_rest_is_right(path, profile):
    batch = images(path, 64)
    with opened(path, profile, queue=40) as runtime:
        expected = runtime(batch)
        futures = [runtime.submit(batch) for _ in range(40)]
        kept = [future for future in reversed(futures) if not future.cancel()]
        assert all(np.array_equal(future.result(60), expected) for future in kept)
        assert np.array_equal(runtime.submit(batch, timeout=60).result(60), expected)

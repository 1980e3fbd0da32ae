"""The queue before an engine: bounded, cancellable, and never waiting for itself."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from ghostdeploy.errors import BundleError, InputError, QueueFull, UsageError
from tests.means import Means, assert_nothing_is_held, images, means


class Held:
    """Holds every native call until it is let go; `entered` counts them."""

    def __init__(self):
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, inputs):
        self.entered.release()
        assert self.go.wait(20)


@pytest.fixture
def held():
    held = Held()
    yield held
    held.go.set()


def test_a_full_queue_refuses_at_once_with_timeout_zero(held):
    with Means(queue=2, before=held) as runtime:
        futures = [runtime.submit(images(1)) for _ in range(2)]
        with pytest.raises(QueueFull, match="queue of out/means was full: 2 submissions") as caught:
            runtime.submit(images(1), timeout=0)
        held.go.set()
        assert [len(future.result(20)) for future in futures] == [1, 1]
        assert runtime.submit(images(1), timeout=0).result(20).shape == (1, 3)

    assert "larger queue" in caught.value.hint
    assert isinstance(caught.value, UsageError)


def test_a_full_queue_is_waited_for_as_long_as_the_timeout_says(held):
    with Means(queue=1, before=held) as runtime:
        runtime.submit(images(1))
        start = time.monotonic()
        with pytest.raises(QueueFull, match=r"was full for 0\.2 s"):
            runtime.submit(images(1), timeout=0.2)
        assert time.monotonic() - start >= 0.2
        held.go.set()


def test_without_timeout_submit_waits_for_room(held):
    with Means(queue=1, before=held) as runtime, ThreadPoolExecutor(1) as other:
        runtime.submit(images(1))
        waiting = other.submit(runtime.submit, images(2))
        assert held.entered.acquire(timeout=20)
        assert not waiting.done()
        held.go.set()
        assert np.array_equal(waiting.result(20).result(20), means(2))


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("inf"), "soon"], ids=repr)
def test_a_timeout_that_is_no_time_is_a_usage_error(timeout):
    with Means() as runtime, pytest.raises(UsageError, match="timeout is") as caught:
        runtime.submit(images(1), timeout=timeout)

    assert "None waits" in caught.value.hint


def test_a_batch_of_many_pieces_takes_one_place(held):
    with Means(batch=1, queue=1, before=held) as runtime:
        future = runtime.submit(images(7))
        with pytest.raises(QueueFull):
            runtime.submit(images(1), timeout=0)
        held.go.set()
        assert np.array_equal(future.result(20), means(7))
        assert runtime.calls == [1] * 7


def test_a_wrong_input_takes_no_place(held):
    with Means(queue=1, before=held) as runtime:
        runtime.submit(images(1))
        with pytest.raises(InputError, match="is empty"):
            runtime.submit(images(1)[:0], timeout=0).result(0)
        held.go.set()


def test_what_waits_can_be_cancelled_and_never_runs(held):
    with Means(queue=9, before=held) as runtime:
        futures = [runtime.submit(images(1)) for _ in range(9)]
        assert held.entered.acquire(timeout=20)
        assert not futures[0].cancel()
        assert futures[-1].cancel()
        held.go.set()
        with pytest.raises(CancelledError):
            futures[-1].result(20)
        assert [len(future.result(20)) for future in futures[:-1]] == [1] * 8
        assert len(runtime.calls) == 8
        assert runtime.submit(images(2)).result(20).shape == (2, 3)


def test_cancelling_everything_leaves_the_queue_empty(held):
    with Means(queue=8, before=held) as runtime:
        futures = [runtime.submit(images(1)) for _ in range(8)]
        cancelled = [future.cancel() for future in futures]
        held.go.set()
        assert sum(cancelled) == 6  # two are in the engine's window
        again = [runtime.submit(images(1), timeout=20) for _ in range(20)]
        assert all(len(future.result(20)) == 1 for future in again)


def test_callbacks_of_a_cancelled_future_are_called(held):
    called = threading.Event()
    with Means(queue=4, before=held) as runtime:
        futures = [runtime.submit(images(1)) for _ in range(4)]
        futures[-1].add_done_callback(lambda _: called.set())
        assert futures[-1].cancel()
        held.go.set()
        assert called.wait(20)


def test_one_stream_answers_in_the_order_of_submission():
    order = []
    with Means(queue=50) as runtime:
        for number in range(50):
            runtime.submit(images(1)).add_done_callback(lambda _, number=number: order.append(number))
        assert runtime.submit(images(1)).result(20) is not None
    time_limit = time.monotonic() + 20
    while len(order) < 50 and time.monotonic() < time_limit:
        time.sleep(0.001)

    assert order == list(range(50))


def test_a_callback_that_raises_is_logged_and_harms_nothing(caplog):
    told = threading.Event()
    with Means() as runtime:
        future = runtime.submit(images(1))
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(lambda _: told.set())
        assert told.wait(20)
        assert runtime.submit(images(1)).result(20).shape == (1, 3)

    assert "ZeroDivisionError" in caplog.text


def test_a_callback_added_late_is_called_at_once():
    with Means() as runtime:
        future = runtime.submit(images(1))
        future.result(20)
        seen = []
        future.add_done_callback(lambda f: seen.append((f, threading.current_thread())))

    assert seen == [(future, threading.current_thread())]


def test_close_waits_for_the_callbacks():
    told = []
    with Means() as runtime:
        for number in range(3):
            runtime.submit(images(1)).add_done_callback(lambda _, n=number: (time.sleep(0.1), told.append(n)))

    assert told == [0, 1, 2]


def test_a_callback_may_submit_to_a_full_queue():
    """A chain of 200 through a queue of one, while another thread keeps that queue full."""
    left, end = iter(range(200)), threading.Event()
    with Means(queue=1) as runtime:

        def again(future):
            future.result()
            if next(left, None) is None:
                end.set()
            else:
                runtime.submit(images(1)).add_done_callback(again)

        again(runtime.submit(images(1)))
        while not end.is_set():
            runtime.submit(images(2))
        assert end.wait(20)


def test_a_callback_may_call_the_model_and_wait_for_other_futures():
    found, end = [], threading.Event()
    with Means(queue=2) as runtime:

        def work(_):
            found.append(runtime(images(3)))
            found.append(runtime.submit(images(2)).result(20))
            end.set()

        runtime.submit(images(1)).add_done_callback(work)
        assert end.wait(20)

    assert np.array_equal(found[0], means(3))
    assert np.array_equal(found[1], means(2))


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("batch", [None, 1], ids=["whole", "pieces"])
def test_an_error_of_the_engine_ends_its_own_submission_only(batch, streams):
    def bad(inputs):
        if (inputs["x"] == 7).all():
            raise RuntimeError("first line\nout of luck\n")

    unlucky = np.full((4, 3, 4, 4), 7, np.float32)
    with Means(batch=batch, streams=streams, queue=3, before=bad) as runtime:
        for _ in range(20):
            failing, fine = runtime.submit(unlucky), runtime.submit(images(3))
            with pytest.raises(BundleError, match="numpy failed while running out/means: out of luck") as caught:
                failing.result(20)
            assert np.array_equal(fine.result(20), means(3))

    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_engine_that_does_not_even_start_is_told_by_the_future():
    class Broken(Means):
        def _start(self, inputs, done):
            raise RuntimeError("no request left")

    with Broken(batch=1, queue=2) as runtime:
        for _ in range(5):
            with pytest.raises(BundleError, match="no request left"):
                runtime.submit(images(2000)).result(20)  # 2,000 pieces: no recursion may be that deep


def test_close_lets_in_what_waits_for_room_and_waits_for_it(held):
    runtime = Means(queue=1, before=held)
    with ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(runtime.submit, images(1)) for _ in range(8)]
        assert held.entered.acquire(timeout=20)
        closing = pool.submit(runtime.close)
        held.go.set()
        closing.result(20)
        outcomes = [one.exception(20) or one.result().result(0) for one in waiting]

    assert runtime.closed == 1
    assert all(isinstance(one, UsageError) or np.array_equal(one, means(1)) for one in outcomes)
    assert any(not isinstance(one, UsageError) for one in outcomes)


def test_submit_after_close_is_a_usage_error_and_no_full_queue():
    runtime = Means()
    runtime.close()

    with pytest.raises(UsageError, match="was closed") as caught:
        runtime.submit(images(1), timeout=0)

    assert not isinstance(caught.value, QueueFull)


@pytest.mark.parametrize("streams", [1, 3])
def test_many_threads_through_a_narrow_queue_all_get_their_own_answer(streams):
    with Means(batch=2, streams=streams, queue=2) as runtime, ThreadPoolExecutor(8) as pool:

        def work(number):
            count = 1 + number % 5
            return all(np.array_equal(runtime.submit(images(count)).result(60), means(count)) for _ in range(100))

        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize(("streams", "queue", "expected"), [(1, None, 4), (3, None, 12), (2, 5, 5)])
def test_the_queue_is_four_places_per_stream_unless_told(streams, queue, expected):
    with Means(streams=streams, queue=queue) as runtime:
        assert runtime.info()["queue"] == expected


def test_a_runtime_that_is_dropped_is_freed_without_the_garbage_collector():
    runtime = Means()
    runtime.submit(images(1)).result(20)
    time_limit = time.monotonic() + 20
    gone = weakref.ref(runtime)
    gc.disable()
    try:
        del runtime
        while gone() is not None and time.monotonic() < time_limit:  # the worker lets go after the result
            time.sleep(0.001)
        assert gone() is None
    finally:
        gc.enable()


def test_a_full_queue_and_a_wrong_timeout_hold_nothing(held):
    runtime = Means(queue=1, before=held)
    runtime.submit(images(1))
    for timeout, kind in ((0, QueueFull), (-1, UsageError)):
        for _ in range(5):
            with pytest.raises(kind):
                runtime.submit(images(1), timeout=timeout)
    held.go.set()
    runtime.submit(images(1)).result(20)

    assert_nothing_is_held(runtime)

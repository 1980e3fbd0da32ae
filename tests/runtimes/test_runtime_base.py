"""What the base class promises whatever the backend does: shown with a backend of three hooks in pure NumPy."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import BundleError, UsageError
from tests.means import LABELS, Means, images


def knock_until_refused(gate):
    """Ends at the moment in which another thread has shut the door."""
    while True:
        gate.enter()
        gate.leave()


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("batch", "count", "calls"),
    [(None, 7, [7]), (1, 3, [1, 1, 1]), (3, 3, [3]), (3, 2, [3]), (3, 7, [3, 3, 3])],
)
def test_the_engine_gets_exactly_the_batch_it_was_built_for(batch, count, calls):
    with Means(batch=batch) as runtime:
        assert np.array_equal(runtime(images(count)), images(count).mean(axis=(2, 3)))
        assert runtime.calls == calls


def test_the_filling_is_a_copy_of_the_last_image():
    seen = []
    with Means(batch=4, before=lambda inputs: seen.append(inputs["x"].copy())) as runtime:
        runtime(images(2))

    assert np.array_equal(seen[0], images(2)[[0, 1, 1, 1]])


def test_pieces_of_a_batch_run_at_the_same_time_when_the_engine_has_streams():
    meeting = threading.Barrier(2)
    with Means(batch=1, streams=2, before=lambda _: meeting.wait(20)) as runtime:
        assert np.array_equal(runtime(images(4)), images(4).mean(axis=(2, 3)))


def test_many_futures_whose_pieces_need_threads_do_not_wait_for_each_other_forever():
    with Means(batch=1, streams=2) as runtime:
        futures = [runtime.submit(images(5)) for _ in range(40)]
        assert all(np.array_equal(f.result(30), images(5).mean(axis=(2, 3))) for f in futures)


@pytest.mark.parametrize("batch", [None, 1], ids=["whole", "pieces"])
def test_an_error_of_the_engine_while_running_is_a_bundle_error_with_its_last_line(batch):
    error = RuntimeError("trace:\n  at line 3\nNode Conv_7 ran out of luck\n")
    with Means(batch=batch, before=lambda _: fail(error)) as runtime:
        with pytest.raises(BundleError, match="numpy failed while running out/means: Node Conv_7 ran out of luck"):
            runtime(images(2))
        runtime.before = lambda _: None
        assert runtime(images(2)).shape == (2, 3)


def test_an_error_of_the_engine_while_opening_is_a_bundle_error():
    with pytest.raises(BundleError, match="numpy refuses out/means: bad magic"):
        Means(opening=lambda: fail(ValueError("bad magic")))


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()], ids=repr)
def test_lack_of_memory_and_the_users_stop_pass_through(error):
    with pytest.raises(type(error)):
        Means(opening=lambda: fail(error))
    with Means(before=lambda _: fail(error)) as runtime, pytest.raises(type(error)):
        runtime(images(1))


def test_an_engine_that_does_not_match_its_promise_is_closed_again():
    closed = []

    class Watched(Means):
        def _close(self):
            closed.append(self)

    with pytest.raises(BundleError, match=r"outputs y float32 \(N, 3\), expected z float32 \(N, 3\)"):
        Watched(outputs=(TensorSpec(name="z", dtype="float32", shape=(None, 3)),))

    assert len(closed) == 1


def test_the_engine_is_freed_once_and_only_after_the_last_call():
    inside, go = threading.Event(), threading.Event()
    runtime = Means(before=lambda _: (inside.set(), go.wait(20)))
    caller = threading.Thread(target=lambda: runtime(images(1)))
    caller.start()
    inside.wait(20)
    closer = threading.Thread(target=runtime.close)
    closer.start()

    with pytest.raises(UsageError, match="was closed"):
        knock_until_refused(runtime._gate)
    assert runtime.closed == 0
    go.set()
    caller.join(20)
    closer.join(20)
    runtime.close()

    assert runtime.closed == 1


def test_a_future_may_close_its_runtime():
    runtime = Means()
    done = threading.Event()

    runtime.submit(images(1)).add_done_callback(lambda _: (runtime.close(), done.set()))

    assert done.wait(20)
    assert runtime.closed == 1


@pytest.mark.parametrize(
    ("labels", "value", "words"),
    [(["a", "b"], 0, "3 logits, expected 2"), (LABELS, np.nan, "NaN or infinite logits")],
)
def test_logits_that_cannot_be_ranked_are_a_bundle_error(labels, value, words):
    class Odd(Means):
        def _run(self, inputs):
            return [np.full((len(inputs["x"]), 3), value, np.float32)]

    with Odd(labels=labels) as runtime, pytest.raises(BundleError, match=words):
        runtime.classify(np.zeros((4, 4, 3), np.uint8))


def test_probabilities_of_huge_logits_do_not_overflow():
    class Huge(Means):
        def _run(self, inputs):
            return [np.array([[3e38, 3e38, -3e38]], np.float32)]

    with Huge() as runtime:
        assert runtime.classify(np.zeros((4, 4, 3), np.uint8)) == [("a", 0.5), ("b", 0.5), ("c", 0.0)]

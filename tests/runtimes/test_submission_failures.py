"""A submission that fails on its way in holds nothing: no place in the queue, no call that close() waits for."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.errors import BundleError
from tests.means import Means, assert_nothing_is_held, images, means


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("odd"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("call", ["submit", "infer"])
def test_a_batch_that_cannot_be_split_holds_nothing(monkeypatch, error, call):
    runtime = Means(batch=2, queue=3)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("ghostdeploy.runtimes.base.chunks", fail)
        for _ in range(5):
            with pytest.raises((type(error), BundleError)):
                runtime.submit(images(3)) if call == "submit" else runtime.infer({"x": images(3)})

    assert np.array_equal(runtime.submit(images(3)).result(20), means(3))
    assert_nothing_is_held(runtime)


def test_a_submission_that_cannot_be_queued_holds_nothing(monkeypatch):
    runtime = Means(queue=3)

    def fail(*_):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("ghostdeploy.runtimes.submissions.QueuedFuture", fail)
        for _ in range(5):
            with pytest.raises(MemoryError):
                runtime.submit(images(3))

    assert np.array_equal(runtime.submit(images(3)).result(20), means(3))
    assert_nothing_is_held(runtime)


def test_an_error_of_the_engine_that_cannot_be_read_ends_the_future():
    class UnreadableError(Exception):
        def __str__(self):
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "the engine's text is no text")

    def fail(_):
        raise UnreadableError

    runtime = Means(queue=2, before=fail)
    for _ in range(5):
        with pytest.raises(UnreadableError):
            runtime.submit(images(1)).result(20)

    assert_nothing_is_held(runtime)

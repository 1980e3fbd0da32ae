"""Submissions: a bounded queue before an engine, and the futures of its results.

    submit ─ slot ─→ waiting ─→ in the engine ─→ future ─→ its callbacks
             `capacity` slots   `window` batches            on their own thread

A submission holds its slot until its result is there. `window` is two batches per stream: the engine finds the next one
without waiting for Python. What waits outside the window can still be cancelled.

Nothing here can wait for itself. Slots are freed by the threads that bring results, and those never run foreign code:
callbacks run on one thread that only `close` waits for, and not where a callback calls it. So a callback may submit to
a full queue, call the model, take another future's result, or close the runtime.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ghostdeploy.errors import QueueFull, UsageError
from ghostdeploy.runtimes.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays

    Outcome = Sequence[NDArray[Any]] | BaseException
    """Outputs of one batch, or why there are none."""
    Done = Callable[[Outcome], None]
    """Takes the outcome; called once, from any thread."""


@dataclass(slots=True, kw_only=True)
class Work:
    """How the pieces of one submission are computed.

    Attributes:
        start: Starts one piece in the background.
        merge: Makes the result of the outputs of all pieces.
        explain: Makes the caller's error of the engine's.
        leave: Is called last, whatever happened.
    """

    start: Callable[[Arrays, Done], None]
    merge: Callable[[list[Any]], NDArray[Any]]
    explain: Callable[[BaseException], BaseException]
    leave: Callable[[], None]


class QueuedFuture(Future["NDArray[Any]"]):
    """A future whose callbacks run on their own thread once it is done.

    Args:
        callbacks: A pool of one thread.
    """

    def __init__(self, callbacks: Pool) -> None:
        super().__init__()
        self._callbacks_pool = callbacks

    def add_done_callback(self, fn: Callable[[Future[NDArray[Any]]], object]) -> None:
        """Calls `fn(self)` when done: at once and here if it is done already, as every future does."""
        if self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda _: self._hand_over(fn))

    def _hand_over(self, fn: Callable[[Future[NDArray[Any]]], object]) -> None:
        call = partial(Future.add_done_callback, self, fn)  # done by now, so it calls, and logs what `fn` raises
        try:
            self._callbacks_pool.submit(call)
        except RuntimeError:  # cancelled by a thread that the closing runtime has overtaken
            call()


@dataclass(slots=True, eq=False)
class _Submission:
    future: QueuedFuture
    work: Work
    parts: list[Any]
    left: int
    begun: bool = False
    cancelled: bool = False
    error: BaseException | None = None


class Submissions:
    """The queue of one runtime.

    Args:
        where: The bundle, for messages.
        capacity: Submissions accepted at a time.
        window: Batches given to the engine at a time.
    """

    def __init__(self, where: str, *, capacity: int, window: int) -> None:
        self.capacity = capacity
        self._where = where
        self._window = window
        self._slots = threading.Semaphore(capacity)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[_Submission, int, Arrays]] = deque()
        self._running = 0
        self._callbacks = Pool("ghostdeploy-callbacks", 1)

    def wait_for_room(self, timeout: float | None) -> None:
        """Takes a slot; `add` must follow.

        Args:
            timeout: Seconds to wait; 0 does not wait, None waits as long as it takes.

        Raises:
            QueueFull: There was none in time.
            UsageError: `timeout` is negative or no number.
        """
        if timeout is not None and not (isinstance(timeout, (int, float)) and 0 <= timeout < math.inf):
            raise UsageError(f"timeout is {timeout!r}, expected seconds from 0", hint="None waits as long as it takes")
        if not self._slots.acquire(timeout=timeout):
            waited = f" for {timeout:g} s" if timeout else ""
            raise QueueFull(
                f"the queue of {self._where} was full{waited}: {self.capacity} submissions pending, "
                f"expected fewer than {self.capacity}",
                hint="drop this batch, wait longer, or give ghostdeploy.load a larger queue",
            )

    def add(self, pieces: list[Arrays], work: Work) -> Future[NDArray[Any]]:
        """Queues a submission that has its slot.

        Args:
            pieces: Batches of exactly the payload's size.
            work: What to do with them.
        """
        try:
            submission = _Submission(QueuedFuture(self._callbacks), work, [None] * len(pieces), len(pieces))
            jobs = [(submission, index, piece) for index, piece in enumerate(pieces)]
        except BaseException:  # nothing will end what was never queued
            self._slots.release()
            work.leave()
            raise
        with self._lock:
            self._waiting.extend(jobs)
        self._pump()
        return submission.future

    def refused(self, error: BaseException) -> Future[NDArray[Any]]:
        """Returns the future of a submission whose input is wrong: it needs no slot."""
        future = QueuedFuture(self._callbacks)
        future.set_exception(error)
        return future

    def close(self) -> None:
        """Waits for the callbacks handed over, but not for the one that calls this; every submission has ended."""
        self._callbacks.close(wait=True)

    def _pump(self) -> None:
        """Gives the engine what fits into the window."""
        while (job := self._next()) is not None:
            submission, index, piece = job
            if submission.cancelled or submission.error is not None:
                self._settle(submission, index, None)
                continue
            try:
                submission.work.start(piece, partial(self._done, submission, index))
            except BaseException as error:
                self._settle(submission, index, error)
                if not isinstance(error, Exception):  # the user's stop goes on
                    raise

    def _next(self) -> tuple[_Submission, int, Arrays] | None:
        with self._lock:
            if not self._waiting or self._running >= self._window:
                return None
            job = self._waiting.popleft()
            self._running += 1
            submission = job[0]
            if not submission.begun:
                submission.begun = True
                submission.cancelled = not submission.future.set_running_or_notify_cancel()
            return job

    def _done(self, submission: _Submission, index: int, outcome: Outcome) -> None:
        """Takes the outcome of a started piece."""
        ended = self._note(submission, index, outcome)
        self._pump()  # first: the engine shall not wait for the merging
        if ended:
            self._finish(submission)

    def _settle(self, submission: _Submission, index: int, outcome: Outcome | None) -> None:
        if self._note(submission, index, outcome):
            self._finish(submission)

    def _note(self, submission: _Submission, index: int, outcome: Outcome | None) -> bool:
        """Keeps an outcome; tells whether it was the submission's last."""
        with self._lock:
            self._running -= 1
            submission.left -= 1
            if isinstance(outcome, BaseException):
                submission.error = submission.error or outcome
            else:
                submission.parts[index] = outcome
            return submission.left == 0

    def _finish(self, submission: _Submission) -> None:
        future, work = submission.future, submission.work
        self._slots.release()  # before the result: who has it finds room
        try:
            if submission.error is not None:
                future.set_exception(_explained(work, submission.error))
            elif not submission.cancelled:
                _resolve(future, work, submission.parts)
        finally:
            work.leave()


def _explained(work: Work, error: BaseException) -> BaseException:
    """Returns the caller's error; the engine's own where it cannot even be read, so that the future ends."""
    try:
        return work.explain(error)
    except Exception:
        return error


def _resolve(future: QueuedFuture, work: Work, parts: list[Any]) -> None:
    try:
        result = work.merge(parts)
    except Exception as error:
        future.set_exception(_explained(work, error))
    else:
        future.set_result(result)

"""Calls of one engine: as many at a time as it has streams, a limited number that waits, each for a limited time.

    inside = running + waiting ≤ queue         the memory that requests hold is bounded by queue × body

A call that is late is answered so, and counted until its thread is free: a hanging engine fills the queue, not the
memory.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from ghostdeploy.serving.refusals import Busy, Late

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Work:
    """Threads that call an engine; `run` belongs to one event loop.

    Args:
        name: The model's, for messages.
        streams: Calls at a time.
        queue: Calls that run or wait.
        seconds: From `run` to its result.
    """

    def __init__(self, name: str, *, streams: int, queue: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix=f"serve-{name}")
        self._name, self._queue, self._seconds = name, queue, seconds
        self._inside = 0

    @property
    def inside(self) -> int:
        """Calls that run or wait."""
        return self._inside

    async def run(self, call: Callable[[], T]) -> T:
        """Returns what `call` returns, from a thread.

        Raises:
            Busy: The queue is full.
            Late: There was no result in time.
        """
        if self._inside >= self._queue:
            raise Busy(f"{self._name} has {self._inside} requests under way or waiting, its limit; try again later")
        self._inside += 1
        until = time.monotonic() + self._seconds
        found = asyncio.wrap_future(self._pool.submit(self._before, until, call))
        found.add_done_callback(self._leave)
        done, _ = await asyncio.wait(
            (found,), timeout=self._seconds
        )  # which leaves the call alone where this is given up
        if not done:
            raise self._late()
        return found.result()

    def close(self) -> None:
        """Waits for the calls under way."""
        self._pool.shutdown()

    def _before(self, until: float, call: Callable[[], T]) -> T:
        if time.monotonic() > until:  # nobody waits any more
            raise self._late()
        return call()

    def _leave(self, found: asyncio.Future[T]) -> None:
        self._inside -= 1
        if not found.cancelled():
            found.exception()  # taken, as nobody may wait for it any more: else asyncio complains

    def _late(self) -> Late:
        return Late(f"{self._name} did not answer within {self._seconds:g} s")

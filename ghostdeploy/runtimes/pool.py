"""Worker threads that do not exist before the first task."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")


class Pool:
    """A thread pool made on first use.

    Args:
        name: Prefix of the threads' names.
        threads: At most this many.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._own: set[int] = set()

    def submit(self, task: Callable[..., T], *args: Any) -> Future[T]:
        """Starts a task."""
        return self._made().submit(task, *args)

    def tell(self, done: Callable[[T | BaseException], None], task: Callable[..., T], *args: Any) -> None:
        """Starts a task whose result, or whose exception, `done` gets on the same thread."""
        self._made().submit(_tell, done, task, args)

    def map(self, task: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
        """Runs a task on each item; results come in the items' order."""
        return self._made().map(task, items)

    def close(self, *, wait: bool = False) -> None:
        """Lets the threads go.

        Args:
            wait: After the tasks taken; a task that calls this waits for none, as it would for itself.
        """
        if self._executor is not None:
            self._executor.shutdown(wait=wait and threading.get_ident() not in self._own)

    def _made(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, self._name, self._join)
            return self._executor

    def _join(self) -> None:
        self._own.add(threading.get_ident())


def _tell(done: Callable[[T | BaseException], None], task: Callable[..., T], args: tuple[Any, ...]) -> None:
    try:
        outcome: T | BaseException = task(*args)
    except BaseException as error:
        outcome = error
    done(outcome)

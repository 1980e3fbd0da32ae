"""Stages of a run: measured here, shown by a listener."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Listener(Protocol):
    """Receives progress. The command line draws bars; the default ignores it."""

    def started(self, stage: str) -> None:
        """A stage begins."""
        ...

    def advanced(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` steps of the stage are finished."""
        ...

    def finished(self, stage: str, seconds: float) -> None:
        """The stage ended without an error after `seconds` of wall time."""
        ...


class Silent:
    """The listener that ignores everything."""

    def started(self, stage: str) -> None:
        """See `Listener`."""

    def advanced(self, stage: str, done: int, total: int) -> None:
        """See `Listener`."""

    def finished(self, stage: str, seconds: float) -> None:
        """See `Listener`."""


class Stages:
    """Runs stages one after another.

    Attributes:
        seconds: Wall time by stage, in order.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener or Silent()
        self._current = ""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures the block as stage `name`."""
        self._current = name
        self._listener.started(name)
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin
        self._listener.finished(name, self.seconds[name])

    def advance(self, done: int, total: int) -> None:
        """Reports the progress of the current stage."""
        self._listener.advanced(self._current, done, total)

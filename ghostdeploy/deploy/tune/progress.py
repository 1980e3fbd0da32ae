"""Progress of a run: steps done, current step, best so far, and time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at a run."""

    done: int
    total: int
    """Steps known by now: bundles to export, entries to measure, and the two contests; it grows with further ones."""
    doing: str
    best: str | None
    """The best so far with its figure."""
    spent: float
    """Seconds, over all restarts."""
    budget: float
    """Seconds."""


class Watcher(Protocol):
    """Is shown the progress. The command line draws a bar; the default watches nothing."""

    def show(self, seen: Seen) -> None:
        """Something changed."""
        ...


class Blind:
    """The watcher that watches nothing."""

    def show(self, seen: Seen) -> None:
        """See `Watcher`."""


class Progress:
    """Counts steps and time, and tells the watcher; receives the stages of exports as a `stages.Listener`.

    Args:
        watcher: Is shown every change.
        budget: Seconds that the run may take.
        before: Seconds that killed runs of the same request took.
    """

    def __init__(self, watcher: Watcher | None, budget: float, before: float) -> None:
        self._watcher = watcher or Blind()
        self._begin = time.monotonic() - before
        self._step = ""
        self._doing = ""
        self._closed = False
        self.budget = budget
        self.best: str | None = None
        self.done = 0
        self.total = 0

    @property
    def spent(self) -> float:
        """Seconds since the request began, over all restarts."""
        return time.monotonic() - self._begin

    def is_within(self, share: float, *, ahead: float = 0.0) -> bool:
        """Returns whether less than this share of the budget will be spent in `ahead` seconds."""
        return not self._closed and self.spent + ahead < share * self.budget

    def close(self) -> None:
        """Nothing new is begun from here on: the request came to its end before."""
        self._closed = True

    def expect(self, steps: int) -> None:
        """Adds steps that lie ahead."""
        self.total += steps
        self._show()

    def begin(self, step: str) -> None:
        """A step begins."""
        self._step = self._doing = step
        self._show()

    def end(self, steps: int = 1) -> None:
        """Steps are done."""
        self.done += steps
        self._show()

    def lead(self, best: str) -> None:
        """There is a best so far."""
        if best != self.best:
            self.best = best
            self._show()

    def started(self, stage: str) -> None:
        """See `stages.Listener`."""
        self._doing = f"{self._step}: {stage}"
        self._show()

    def advanced(self, stage: str, done: int, total: int) -> None:
        """See `stages.Listener`."""

    def finished(self, stage: str, seconds: float) -> None:
        """See `stages.Listener`."""

    def _show(self) -> None:
        seen = Seen(
            done=self.done,
            total=self.total,
            doing=self._doing,
            best=self.best,
            spent=self.spent,
            budget=self.budget,
        )
        self._watcher.show(seen)

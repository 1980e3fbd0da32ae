"""How far two answers to the same images agree, in sums that add up over any parts of a set.

    agreement    agreed / count                              its lower 95 % bound by Wilson's interval
    SQNR         10 log10( Σ r² / Σ (y − r)² )  in decibels

What is counted (points, pixels, boxes, pairs) is up to the task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was decided alike."""

    agreed: int
    count: int

    @property
    def share(self) -> float:
        """From 0 to 1; NaN where nothing was decided."""
        return self.agreed / self.count if self.count else math.nan

    @property
    def lower(self) -> float:
        """Lower 95 % bound of the share; 0 where nothing was decided."""
        return wilson(self.agreed, self.count)[0]


@dataclass(frozen=True, slots=True)
class Difference:
    """Energy of a reference, and of what differs from it."""

    signal: float
    noise: float

    @property
    def sqnr_db(self) -> float | None:
        """In decibels, None where nothing differs; −∞ where only the reference is zero."""
        if not self.noise:
            return None
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


def agreement(alike: NDArray[np.bool_]) -> Agreement:
    """Counts decisions, an array of any shape."""
    return Agreement(int(np.count_nonzero(alike)), alike.size)


def difference(values: NDArray[Any], reference: NDArray[Any]) -> Difference:
    """Compares two arrays of one shape."""
    wanted = np.asarray(reference, np.float64)
    off = np.asarray(values, np.float64) - wanted
    return Difference(float(np.vdot(wanted, wanted)), float(np.vdot(off, off)))


def merge_agreements(parts: Iterable[Agreement]) -> Agreement:
    """Returns the agreement on all parts of a set together."""
    every = list(parts)
    return Agreement(sum(one.agreed for one in every), sum(one.count for one in every))


def merge_differences(parts: Iterable[Difference]) -> Difference:
    """Returns the difference on all parts of a set together."""
    every = list(parts)
    return Difference(math.fsum(one.signal for one in every), math.fsum(one.noise for one in every))

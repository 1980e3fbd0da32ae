"""Block-wise fallback: returns the worst units to float until the gate is met.

Every quantized unit u is returned to float alone and the rest stays INT8; its gain is

    gain(u) = SQNR(logits without Q/DQ of u) − SQNR(logits with all Q/DQ)     and the same for agreement.

Units are ranked by gain. Errors of different units are nearly independent, so the units to return are a prefix of that
ranking: its shortest sufficient length is found by doubling and bisection, some ten runs instead of hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.deploy.prove.diagnose import UnitGain
from ghostdeploy.deploy.prove.parity import names_classes
from ghostdeploy.deploy.prove.tolerance import VALUES_SQNR_DB
from ghostdeploy.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray


MOST_IN_FLOAT = 0.5
"""Largest share of the multiply-accumulates that the fallback may return to float."""


@dataclass(frozen=True)
class Gate:
    """The condition of an INT8 graph, on simulated logits.

    Attributes:
        reference: Logits of the PyTorch model (N, classes).
        labels: Class indices (N,), None without labels.
        required_agreement: Smallest lower 95 % bound of the agreement; with too few images to reach it at all, full
            agreement is asked.
        max_drop: Largest drop of top-1, as a share.
    """

    reference: NDArray[Any]
    labels: NDArray[np.int64] | None
    required_agreement: float
    max_drop: float

    def holds(self, logits: NDArray[Any]) -> bool:
        """Returns whether the logits pass."""
        if not np.isfinite(logits).all():
            return False  # of NaN the first is the largest, whatever the others are
        found, wanted = logits.argmax(axis=1), self.reference.argmax(axis=1)
        agreed, count = int((found == wanted).sum()), len(wanted)
        enough = wilson(count, count)[0] >= self.required_agreement
        agrees = wilson(agreed, count)[0] >= self.required_agreement if enough else agreed == count
        if not names_classes(self.reference):
            agrees = agrees and sqnr(logits, self.reference) >= VALUES_SQNR_DB
        if self.labels is None:
            return agrees
        drop = float((wanted == self.labels).mean() - (found == self.labels).mean())
        return agrees and drop <= self.max_drop


def sqnr(logits: NDArray[Any], reference: NDArray[Any]) -> float:
    """Returns 10 log10(Σ r² / Σ (y − r)²) in decibels, 200 for equal arrays."""
    wanted = reference.astype(np.float64)
    error = float(np.square(logits - wanted).sum())
    return 10 * float(np.log10(np.square(wanted).sum() / error)) if error else 200.0


def agreement(logits: NDArray[Any], reference: NDArray[Any]) -> float:
    """Returns the share of images with the same top-1 class."""
    same = logits.argmax(axis=1) == reference.argmax(axis=1)
    return float((same & np.isfinite(logits).all(axis=1)).mean())


def rank(
    units: Sequence[str],
    simulate: Callable[[frozenset[str]], NDArray[Any]],
    reference: NDArray[Any],
    *,
    on_progress: Callable[[int, int], None],
) -> tuple[UnitGain, ...]:
    """Measures the gain of returning each unit to float.

    Args:
        units: All quantized units.
        simulate: Logits of a few images with the named units in float.
        reference: The float logits of the same images.
        on_progress: Called with done and total.

    Returns:
        One record per unit, best first.
    """
    base = simulate(frozenset())
    base_sqnr, base_agreement = sqnr(base, reference), agreement(base, reference)
    gains = []
    for index, unit in enumerate(units):
        logits = simulate(frozenset({unit}))
        gains.append(
            UnitGain(
                unit=unit,
                sqnr_gain_db=sqnr(logits, reference) - base_sqnr,
                agreement_gain=agreement(logits, reference) - base_agreement,
            )
        )
        on_progress(index + 1, len(units))
    return tuple(sorted(gains, key=lambda gain: -gain.sqnr_gain_db))


def affordable(ranked: Sequence[str], macs: Mapping[str, int]) -> list[str]:
    """Returns the leading units that together do at most half of the work: beyond it INT8 would be a name only."""
    limit, spent, found = MOST_IN_FLOAT * sum(macs.values()), 0.0, []
    for unit in ranked:
        spent += macs[unit]
        if spent > limit:
            break
        found.append(unit)
    return found


def shortest_prefix(ranked: Sequence[str], holds: Callable[[frozenset[str]], bool]) -> tuple[str, ...] | None:
    """Returns the fewest leading units that must be float for the gate to hold, None when all of them do not help."""
    if not ranked:
        return None
    low, high = 0, 1
    while not holds(frozenset(ranked[:high])):
        if high >= len(ranked):
            return None
        low, high = high, min(2 * high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        if holds(frozenset(ranked[:middle])):
            high = middle
        else:
            low = middle
    return tuple(ranked[:high])

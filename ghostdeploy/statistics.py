"""The intervals and tests behind a claim about accuracy or speed.

Wilson score interval of k successes in n (Wilson 1927):
    centre = (k + z²/2) / (n + z²)      half = z/(n + z²) · √( k(n−k)/n + z²/4 )
Exact McNemar test of paired right/wrong (McNemar 1947), b and c the discordant counts:
    p = min(1, 2 · P[Bin(b + c, ½) ≤ min(b, c)])
Interval of a paired drop (b − c)/n, with Agresti and Min's added half observation per cell (2005):
    n' = n + 2, b' = b + ½, c' = c + ½:   (b' − c')/n' ± z · √( b' + c' − (b' − c')²/n' ) / n'
Interval of a median of n values, from the k-th smallest to the k-th largest:
    k = max { k : P[Bin(n, ½) < k] ≤ 2.5 % }
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Z95 = 1.959963984540054


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share; (0, 1) when there is no observation."""
    if count == 0:
        return 0.0, 1.0
    z2 = Z95 * Z95
    centre = (successes + z2 / 2) / (count + z2)
    half = Z95 / (count + z2) * math.sqrt(successes * (count - successes) / count + z2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(lost: int, won: int) -> float:
    """Returns the two-sided exact p-value.

    Args:
        lost: Images that only the reference got right.
        won: Images that only the artefact got right.
    """
    trials = lost + won
    tail = sum(math.comb(trials, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**trials) if trials else 1.0


def paired_drop(lost: int, won: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of the accuracy drop (lost − won) / count."""
    n, b, c = count + 2.0, lost + 0.5, won + 0.5
    centre = (b - c) / n
    half = Z95 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return max(-1.0, centre - half), min(1.0, centre + half)


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the value below which a share of the values lies, linear between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the median by order statistics; the extremes when there are too few values.

    Args:
        values: At least one; from six on the interval holds the median with 95 % confidence.
    """
    ordered, count = sorted(values), len(values)
    below, rank = 0.0, 0
    while rank < count // 2 and below + math.comb(count, rank) / 2**count <= 0.025:
        below += math.comb(count, rank) / 2**count
        rank += 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[-rank]

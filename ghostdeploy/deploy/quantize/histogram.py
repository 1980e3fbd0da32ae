"""A tensor's values as counts in bins of equal width, assumed uniform within each bin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 2048


@dataclass(frozen=True)
class Histogram:
    """Counts of one tensor's values between its extremes.

    Attributes:
        low: Smallest value, at most 0.
        high: Largest value, at least 0.
        counts: int64 (BINS,), bins of equal width.
    """

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def edges(self) -> NDArray[np.float64]:
        """Ends of the bins (BINS + 1,)."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def cumulated(self) -> NDArray[np.float64]:
        """Share of the values below each edge (BINS + 1,)."""
        return np.concatenate([[0.0], np.cumsum(self.counts)]) / max(1, int(self.counts.sum()))

    def share_below(self, value: Any) -> Any:
        """Returns the share of values below one or more values."""
        return np.interp(value, self.edges, self.cumulated)

    def quantile(self, share: float) -> float:
        """Returns the value below which a share of the values lies."""
        return float(np.interp(share, self.cumulated, self.edges))

    def merged(self, other: Histogram) -> Histogram:
        """Returns the histogram of both tensors' values; a value may move by one bin."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        edges = np.linspace(low, high, BINS + 1)
        below = [np.rint(one.share_below(edges) * one.counts.sum()) for one in (self, other)]
        return Histogram(low, high, np.diff(below[0] + below[1]).astype(np.int64))

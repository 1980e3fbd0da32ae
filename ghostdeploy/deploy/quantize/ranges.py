"""Activation ranges from a stream, in bounded memory: extremes first, then a histogram between them.

A range of n steps s with zero point z represents the values (k − z)·s, k = 0 … n: from lo = −z·s to hi = (n − z)·s. z
is a whole number, so that zero is exact (padding, ReLU). With b bits an asymmetric range has n = 2ᵇ − 1 steps, a
symmetric signed one n = 2ᵇ − 2 and z = n/2, a symmetric unsigned one n = 2ᵇ − 1 and z = 0. Three estimators:

    absolute     the narrowest range around all values
    percentile   the narrowest range around all but a share 1 − p of the values at each end (symmetric: in all)
    MSE          argmin over (lo, hi) of  E = Σᵢ (cᵢ/w)·∫ (v − q(v))² dv,  q(v) = s·clip(round(v/s), −z, n − z)

cᵢ are the counts of bins of width w; values lie evenly within a bin. Rounding and clipping have one antiderivative,

    G(v) = s³·k/12 + r³/3,   k = clip(round(v/s), −z, n − z),   r = v − k·s,

because a whole step adds s³/12 and G is continuous where k changes (r jumps from s/2 to −s/2). So, over the bin edges
vᵢ, E = Σᵢ (cᵢ/w)·(G(vᵢ₊₁) − G(vᵢ)) exactly. The search shrinks each end by shares of its extreme on a grid that is
refined twice around the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ghostdeploy.deploy.quantize.activations import Activations, in_groups
from ghostdeploy.deploy.quantize.histogram import BINS, Histogram
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.quantize.recipe import RangeMethod

    _Scales = tuple[NDArray[np.float64], NDArray[np.float64]]
    """Scales and zero points of some candidates."""

__all__ = ["Histogram", "choose_range", "clipped_share", "collect", "collect_from", "dead_share"]


class ActivationReader(Protocol):
    """Gives activations of a float graph."""

    def __call__(self, batch: Batch) -> Iterable[tuple[str, NDArray[Any]]]:
        """Yields the name and the values (N, …) of every tensor, some images at a time."""
        ...

    def maker(self, name: str) -> str:
        """Returns the name of what writes a tensor."""
        ...


PERCENTILE = 99.999
"""Of `percentile`: clips one value in 100,000 at each end."""

_COARSE, _FINE = 17, 9
_SMALLEST = 1 / 32
"""Smallest share of an extreme that the search tries."""
_TOUCHED = 1 - 1e-4
"""Share of the values that the living steps hold."""
_CACHED = 1 << 16
"""Values counted at a time: what is computed of them stays in the processor's cache."""
_NOTHING = 1e-30
"""Width of a range below which float32 scales lose their meaning: the tensor is taken to be zero."""


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Callable[[], Iterable[Batch]],
    *,
    batch_count: int | None = None,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Histogram]:
    """Runs a float graph twice over a stream and returns a histogram per tensor.

    Args:
        model: Float graph.
        tensors: Names of activations, the graph's inputs included, in graph order.
        batches: Returns a fresh stream at each call.
        batch_count: Batches in it; None reports only the second pass.
        threads: Threads of the engine; None is one per core.
        on_progress: Called with done and total, separately for each group of tensors that fits into memory.

    Raises:
        CheckpointError: An activation is NaN or infinite; the first one is named.
    """
    found: dict[str, Histogram] = {}
    for group in in_groups(model, tensors):
        found |= _collect(Activations(model, group, threads=threads), group, batches, batch_count, on_progress)
    return found


def collect_from(
    reader: ActivationReader,
    tensors: Sequence[str],
    batches: Callable[[], Iterable[Batch]],
    *,
    batch_count: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Histogram]:
    """Runs whatever gives activations twice over a stream and returns a histogram per tensor; see `collect`."""
    return _collect(reader, tensors, batches, batch_count, on_progress)


def choose_range(
    histogram: Histogram,
    method: RangeMethod,
    *,
    symmetric: bool,
    bits: int = 8,
    unsigned: bool = False,
    percentile: float = PERCENTILE,
) -> tuple[float, float]:
    """Returns the lowest and highest value to be represented; (0, 0) for a tensor that is zero.

    Args:
        histogram: Of the tensor.
        method: Estimator, see the module docstring.
        symmetric: The zero point is the middle of the integers, or 0 when they are unsigned.
        bits: Of the integers.
        unsigned: With `symmetric`: the range begins at 0.
        percentile: Of the estimator of that name, in percent.
    """
    low, high = histogram.low, histogram.high
    if method == "percentile":
        low, high = _percentile(histogram, percentile / 100, symmetric=symmetric and not unsigned)
    grid = _Grid((1 << bits) - (2 if symmetric and not unsigned else 1), symmetric, unsigned)
    scale, zero = grid.around(low, high)
    if high - low < _NOTHING:
        return 0.0, 0.0
    if method == "mse" and scale > 0:
        scale, zero = _least_error(histogram, grid, scale, zero)
    return 0.0 - zero * scale, (grid.steps - zero) * scale


def clipped_share(histogram: Histogram, low: float, high: float) -> float:
    """Returns the share of values outside [low, high]."""
    return float(histogram.share_below(low) + 1 - histogram.share_below(high))


def dead_share(histogram: Histogram, low: float, high: float, *, steps: int = 255) -> float:
    """Returns the share of the integers of [low, high] outside those that hold all but 1e-4 of the values.

    Half of the values left out are the smallest, half the largest. The other integers could be given away.
    """
    if high <= low or not histogram.counts.sum():
        return 1.0
    ends = np.array([histogram.quantile((1 - _TOUCHED) / 2), histogram.quantile((1 + _TOUCHED) / 2)])
    first, last = np.rint(np.clip((ends - low) / (high - low), 0, 1) * steps)
    return 1.0 - float(last - first + 1) / (steps + 1)


@dataclass(frozen=True)
class _Grid:
    """The integers of a range: `steps` + 1 of them."""

    steps: int
    symmetric: bool
    unsigned: bool

    def around(self, low: float, high: float) -> tuple[float, float]:
        """Returns the smallest scale, and its zero point, that represents all of [low, high] ∋ 0."""
        if self.symmetric:
            zero = 0 if self.unsigned else self.steps // 2
            return max(high, 0.0 if self.unsigned else -low) / (self.steps - zero), zero
        if high <= low:
            return 0.0, 0
        exact = -low / (high - low) * self.steps
        zeros = [z for z in (np.floor(exact), np.ceil(exact)) if (z > 0 or low == 0) and (z < self.steps or high == 0)]
        scales = [max(-low / max(z, 1), high / max(self.steps - z, 1)) for z in zeros]
        best = int(np.argmin(scales))
        return float(scales[best]), float(zeros[best])

    def near(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> _Scales:
        """Returns scales and zero points of ranges whose ends are moved by up to half a step."""
        if self.symmetric:
            zero = 0 if self.unsigned else self.steps // 2
            return high / (self.steps - zero), np.full(high.shape, float(zero))
        scale = (high - low) / self.steps
        return scale, np.rint(-low / scale)


def _least_error(histogram: Histogram, grid: _Grid, scale: float, zero: float) -> tuple[float, float]:
    """Returns the best scale and zero point; those given are the first to beat.

    The ends are moved in turn, twice over all shares of their extremes, then between the neighbours of the best; the
    last word have the zero points beside the found one, each with scales around the found one.
    """
    ends = np.array([histogram.low, histogram.high])
    if grid.symmetric:
        ends = np.array([0.0, max(histogram.high, -histogram.low)])
    share = np.ones(2)
    coarse = np.geomspace(_SMALLEST, 1, _COARSE)
    fine = np.geomspace(coarse[-2], 1 / coarse[-2], _FINE)
    for points, side in product((coarse, coarse, fine), np.flatnonzero(ends)):
        tried = np.tile(share, (len(points), 1))
        tried[:, side] = np.minimum(points if points is coarse else share[side] * points, 1.0)
        share = tried[np.argmin(_errors(histogram, *grid.near(*(tried * ends).T), grid.steps))]
    near_scale, near_zero = (float(found[0]) for found in grid.near(*(share * ends)[:, None]))
    scales = near_scale * np.geomspace(fine[-2] / fine[-1], fine[-1] / fine[-2], 2 * _FINE - 1)
    zeros = near_zero + np.array([0.0] if grid.symmetric else [-1.0, 0.0, 1.0])
    zeros = zeros[(zeros >= 0) & (zeros <= grid.steps)]
    last = np.array([(scale, zero), *product(scales, zeros)])
    best = last[np.argmin(_errors(histogram, last[:, 0], last[:, 1], grid.steps))]
    return float(best[0]), float(best[1])


def _errors(
    histogram: Histogram, scales: NDArray[np.float64], zeros: NDArray[np.float64], steps: int
) -> NDArray[np.float64]:
    """Returns E of every candidate (C,)."""
    edges, scale, zero = histogram.edges, scales[:, None], zeros[:, None]
    level = np.clip(np.rint(edges / scale), -zero, steps - zero)
    rest = edges - level * scale
    antiderivative = level * (scale * scale * scale / 12) + rest * rest * rest / 3
    width = (histogram.high - histogram.low) / len(histogram.counts)
    weights = -np.diff(histogram.counts, prepend=0, append=0) / width  # Σ cᵢ·(Gᵢ₊₁ − Gᵢ), summed by parts
    found: NDArray[np.float64] = antiderivative @ weights
    return found


def _percentile(histogram: Histogram, share: float, *, symmetric: bool) -> tuple[float, float]:
    if not symmetric:
        return min(0.0, histogram.quantile(1 - share)), max(0.0, histogram.quantile(share))
    ends = np.sort(np.abs(histogram.edges))
    end = float(np.interp(share, histogram.share_below(ends) - histogram.share_below(-ends), ends))
    return -end, end


def _collect(
    reader: ActivationReader,
    tensors: Sequence[str],
    batches: Callable[[], Iterable[Batch]],
    batch_count: int | None,
    on_progress: Callable[[int, int], None],
) -> dict[str, Histogram]:
    low, high = dict.fromkeys(tensors, 0.0), dict.fromkeys(tensors, 0.0)
    seen = 0
    for seen, batch in enumerate(batches(), start=1):
        for name, values in reader(batch):
            smallest, largest = float(values.min()), float(values.max())
            if not np.isfinite([smallest, largest]).all():
                raise CheckpointError(
                    f"activation {name} of {reader.maker(name)} is NaN or infinite on a calibration image",
                    hint="check the weights",
                )
            low[name], high[name] = min(low[name], smallest), max(high[name], largest)
        if batch_count is not None:
            on_progress(seen, 2 * batch_count)
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    ahead = 0 if batch_count is None else seen
    for done, batch in enumerate(batches(), start=1):
        for name, values in reader(batch):
            counts[name] += _count(values, low[name], high[name])
        on_progress(ahead + done, ahead + seen)
    return {name: Histogram(low[name], high[name], counts[name]) for name in tensors}


def _count(values: NDArray[Any], low: float, high: float) -> NDArray[np.int64]:
    if high - low < _NOTHING:
        return np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)
    found, values = np.zeros(BINS, np.int64), values.reshape(-1)
    for start in range(0, values.size, _CACHED):
        place = values[start : start + _CACHED] - np.float32(low)
        place *= np.float32(BINS / (high - low))
        found += np.bincount(np.minimum(place, BINS - 1, out=place).astype(np.intp), minlength=BINS)
    return found

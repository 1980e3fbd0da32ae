"""Charts of speed and size: latency, the roofline, accuracy against cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.report.drawing import INK, MUTED, figure, series, style, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes

    from ghostdeploy.deploy.report.records import Run

HALF = 6.4
"""Inches of a chart half as wide as the page."""
_PLACES = ((7, 5), (7, -12), (-7, 5), (-7, -12), (0, 11), (0, -18), (20, 0), (-20, 0), (0, 24), (0, -31))
"""Of a letter beside its point, in units of the chart: the first that is free is taken."""
_LETTER = 0.085
"""Inches of a letter."""
_CLEAR = 13.0
"""Distance of letters from each other, in units."""


@dataclass(frozen=True, slots=True)
class Point:
    """A bundle among others."""

    key: str
    place: int
    """Among the bundles of the model: its colour and marker."""
    cost: float
    value: float
    low: float
    high: float


def latency(runs: Sequence[tuple[int, Run]], name: str) -> Markup:
    """Draws the distribution of the latency of each run: 1 to 99 %, 25 to 75 %, median.

    Args:
        runs: With a latency; each with the place of its bundle.
        name: Of the chart.
    """
    with style():
        names = [f"{run.bundle} {_short(run.where)}" for _, run in runs]
        left = 0.2 + _LETTER * max(map(len, names))
        made, axes = figure(HALF, 0.7 + 0.42 * len(runs), left=left)
        for row, (place, run) in enumerate(runs):
            assert run.timing is not None  # those alone are given
            at = dict(zip(run.timing.shares, run.timing.quantiles_ms, strict=True))
            colour, _ = series(place)
            axes.plot([at[0.01], at[0.99]], [row, row], color=colour, linewidth=1.2)
            axes.plot([at[0.25], at[0.75]], [row, row], color=colour, linewidth=7, solid_capstyle="butt")
            axes.plot([at[0.5]] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1.6)
        axes.set_yticks(range(len(runs)), names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set(ylim=(len(runs) - 0.5, -0.5), xlabel="milliseconds per call: 1 to 99 %, 25 to 75 %, median")
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        return svg(made, name, f"Distribution of the latency of {len(runs)} runs; the figures are in the table")


def roofline(runs: Sequence[tuple[int, Run]], name: str) -> Markup:
    """Draws multiply-accumulates per second against those per byte, under the roofs of the first run's device.

    Args:
        runs: Of one device and thread count, with latency and roofline; each with the place of its bundle.
        name: Of the chart.
    """
    with style():
        made, axes = figure(HALF, 3.6)
        points = []
        for place, run in runs:
            assert run.timing is not None  # those alone are given
            assert run.timing.limit is not None
            moved = run.timing.limit.weight_bytes + run.timing.limit.activation_bytes
            done = run.timing.limit.macs / run.timing.median_ms / 1e6
            points.append(Point(run.bundle, place, run.timing.limit.macs / moved, done, done, done))
        timing = runs[0][1].timing
        assert timing is not None
        assert timing.rates is not None
        least = min(one.cost for one in points) / 4
        most = max(
            8 * max(one.cost for one in points), 2 * timing.rates.macs_per_second / _memory(timing.rates.bandwidths)
        )
        x = np.geomspace(least, most, 200)
        peak = timing.rates.macs_per_second / 1e9
        for bandwidth, kind in ((timing.rates.bandwidths[0], "-"), (timing.rates.bandwidths[-1], (0, (5, 3)))):
            axes.plot(x, np.minimum(peak, x * bandwidth.bytes_per_second / 1e9), color=MUTED, lw=1.2, ls=kind)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(least, most)
        axes.set_ylim(bottom=min(one.value for one in points) / 2, top=2.5 * peak)
        axes.text(most, 1.15 * peak, f"{peak:.0f} GMAC/s, float32  ", ha="right", color=MUTED)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel="multiply-accumulates per byte (line: cache, dashes: memory)", ylabel="GMAC/s")
        _scatter(axes, points)
        said = f"Roofline of {runs[0][1].device}: peak {peak:.0f} GMAC/s, {len(points)} bundles below it"
        return svg(made, name, said)


def pareto(points: Sequence[Point], cost: str, value: str, name: str) -> Markup:
    """Draws a figure against a cost, with its 95 % intervals; a line joins what nothing beats in both.

    Args:
        points: One per bundle or run.
        cost: Label of the horizontal axis, less is better.
        value: Label of the vertical axis, more is better.
        name: Of the chart.
    """
    with style():
        made, axes = figure(HALF, 3.6)
        front = sorted(undominated(points), key=lambda one: one.cost)
        axes.plot([one.cost for one in front], [one.value for one in front], color=MUTED, lw=1.0, ls=(0, (4, 3)))
        for one in points:
            axes.plot([one.cost] * 2, [one.low, one.high], color=series(one.place)[0], linewidth=1.2)
        axes.set_xlim(0, 1.15 * max(one.cost for one in points))
        low, high = min(one.low for one in points), max(one.high for one in points)
        room = max(high - low, 0.2)
        axes.set_ylim(low - 0.15 * room, high + 0.15 * room)
        axes.set(xlabel=cost, ylabel=value)
        axes.grid()
        _scatter(axes, points)
        best = ", ".join(one.key for one in front)
        return svg(made, name, f"{value} against {cost} of {len(points)} bundles; nothing beats {best} in both")


def undominated(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other one beats in cost and value."""
    return [
        one
        for one in points
        if not any(
            other.cost <= one.cost and other.value >= one.value and (other.cost, other.value) != (one.cost, one.value)
            for other in points
        )
    ]


def _memory(bandwidths: Sequence[object]) -> float:
    return float(getattr(bandwidths[-1], "bytes_per_second"))  # noqa: B009


def _short(where: str) -> str:
    return where if len(where) <= 22 else f"{where[:21]}…"


def _scatter(axes: Axes, points: Sequence[Point]) -> None:
    """Draws the points, each with its letter where no other letter is."""
    taken: list[tuple[float, float]] = []
    for one in points:
        colour, marker = series(one.place)
        axes.plot([one.cost], [one.value], marker, color=colour, markersize=6.5)
        x, y = axes.transData.transform((one.cost, one.value)) * 72 / axes.figure.dpi
        free = (p for p in _PLACES if all(abs(x + p[0] - a) + abs(y + p[1] - b) > _CLEAR for a, b in taken))
        dx, dy = next(free, _PLACES[0])
        taken.append((x + dx, y + dy))
        axes.annotate(one.key, (one.cost, one.value), (dx, dy), textcoords="offset points", ha="center", color=INK)

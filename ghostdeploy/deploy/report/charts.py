"""Charts of proof and of the network's layers: noise and precision, ranges. Those of speed are in `speed_charts`."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.report.blocks import in_order, median_db
from ghostdeploy.deploy.report.drawing import BAD, INK, LINE, MUTED, WAIT, figure, series, style, svg

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from ghostdeploy.deploy.report.blocks import Layer
    from ghostdeploy.deploy.report.records import Evidence

WIDE = 13.2
"""Inches of a chart as wide as the page."""
_STRIP = {"float: rule": LINE, "float: gate": WAIT}
_LETTER = 0.085
"""Inches of a letter of a block's name."""


def noise(one: Evidence, place: int, name: str) -> Markup | None:
    """Draws signal over noise of every layer, and under it the precision of each; None where no layer has noise.

    Args:
        one: A quantized bundle.
        place: Among the bundles of its model: its colour.
        name: Of the chart.
    """
    layers = [] if one.diagnosis is None else in_order(one.diagnosis, one.manifest)
    if not any(_db(layer) is not None for layer in layers):
        return None
    found, (colour, _) = one.worst, series(place)
    with style():
        made, axes = figure(WIDE, 3.4)
        places = [number for number, layer in enumerate(layers) if _db(layer) is not None]
        values = [_db(layers[number]) or 0.0 for number in places]
        low, high = _limits(values)
        bottom = low - 0.12 * (high - low)
        axes.vlines(places, low, values, color=colour, linewidth=3.2)
        if (middle := median_db(layers)) is not None:
            axes.axhline(middle, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        if found is not None:
            number = next(number for number, layer in enumerate(layers) if layer.module == found.module)
            axes.vlines([number], low, [found.sqnr_db], color=BAD, linewidth=3.2)
            _name_worst(axes, number, f"{found.module}  {found.sqnr_db:.1f} dB".replace(" -", " −"), len(layers))
        for precision in dict.fromkeys(layer.precision for layer in layers):
            cells = [(number - 0.5, 1.0) for number, layer in enumerate(layers) if layer.precision == precision]
            axes.broken_barh(cells, (bottom, 0.7 * (low - bottom)), color=_STRIP.get(precision, colour), linewidth=0)
        _name_blocks(axes, layers)
        axes.set(ylim=(bottom, high), ylabel="signal over noise, dB")
        axes.grid(axis="y")
        least = f"{min(values, default=0.0):.1f} dB at least"
        said = f"Signal over noise of {len(values)} layers of {one.manifest.name}, {least}"
        return svg(made, name, said + (f", in {found.module}" if found else ""))


def ranges(one: Evidence, place: int, name: str) -> Markup | None:
    """Draws the calibrated range of every layer's input, on a scale that is linear below 1; None without ranges.

    Args:
        one: A quantized bundle.
        place: Among the bundles of its model: its colour.
        name: Of the chart.
    """
    if one.diagnosis is None:
        return None
    layers = in_order(one.diagnosis, one.manifest)
    known = [(number, layer.noise.input_range) for number, layer in enumerate(layers) if layer.noise]
    spans = [(number, span) for number, span in known if span is not None]
    if not spans:
        return None
    with style():
        made, axes = figure(WIDE, 2.6)
        places = [number for number, _ in spans]
        axes.vlines(
            places, [low for _, (low, _) in spans], [high for _, (_, high) in spans], color=series(place)[0], lw=3.2
        )
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        _name_blocks(axes, layers)
        axes.set(ylabel="range of the input")
        axes.grid(axis="y")
        low, high = min(span[0] for _, span in spans), max(span[1] for _, span in spans)
        return svg(made, name, f"Calibrated input ranges of {len(spans)} layers, from {low:.3g} to {high:.3g}")


def _db(layer: Layer) -> float | None:
    return None if layer.noise is None or layer.precision != "int8" else layer.noise.sqnr_db


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max(high - low, 5.0)
    return low - 0.15 * room, high + 0.2 * room


def _name_worst(axes: Axes, place: int, text: str, count: int) -> None:
    """Writes a layer's name at the top of the chart, to the side where there is room."""
    left = place <= count / 2
    axes.axvline(place, color=BAD, linewidth=0.6)
    axes.annotate(
        text,
        (place, 1.0),
        (4 if left else -4, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if left else "right",
        va="top",
        color=BAD,
    )


def _name_blocks(axes: Axes, layers: list[Layer]) -> None:
    """Writes the names of blocks under their layers, as many as have room, and shades every second block."""
    runs = [(name, [place for place, _ in some]) for name, some in groupby(enumerate(layers), lambda one: one[1].block)]
    shared = _shared([name for name, _ in runs])
    inch = (WIDE - 0.9) / max(len(layers), 1)
    ticks, end = [], -1.0
    for number, (whole, places) in enumerate(runs):
        name = whole.removeprefix(shared)
        if number % 2:
            axes.axvspan(places[0] - 0.5, places[-1] + 0.5, color=LINE, alpha=0.25, linewidth=0, zorder=-1)
        centre, half = float(np.mean(places)), 0.5 * (len(name) + 1) * _LETTER
        if centre * inch - half > end:
            ticks.append((centre, name))
            end = centre * inch + half
    axes.set_xticks([centre for centre, _ in ticks], [name for _, name in ticks])
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    if shared:
        axes.set_xlabel(f"blocks; their names begin with {shared}")


def _shared(names: list[str]) -> str:
    """Returns what most names begin with, up to a dot; nothing where there is no such beginning."""
    first = Counter(name.partition(".")[0] for name in names if "." in name).most_common(1)
    return f"{first[0][0]}." if first and first[0][1] > len(names) / 2 else ""

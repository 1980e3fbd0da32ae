"""Which charts of speed and size a model has: one for each figure that its bundles and receipts give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.deploy.report import speed_charts as speed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markupsafe import Markup

    from ghostdeploy.deploy.report.records import Evidence, Run
    from ghostdeploy.deploy.report.views import BundleView, RunView


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its title."""

    title: str
    svg: Markup


def speed_of(bundles: list[BundleView], runs: list[RunView], name: str) -> Iterator[Chart]:
    """Yields the charts of speed and size that the runs and bundles of a model have figures for.

    Args:
        bundles: Of the model.
        runs: Their receipts.
        name: Prefix of the charts' names.
    """
    timed = [(run.place, run.record) for run in runs if run.record.timing is not None]
    if timed:
        yield Chart("Latency of every run", speed.latency(timed, f"{name}-latency"))
    roofed: dict[tuple[str, int], list[tuple[int, Run]]] = {}
    for place, run in timed:
        if run.timing is not None and run.timing.limit is not None and run.timing.rates is not None:
            roofed.setdefault((run.where, run.timing.threads), []).append((place, run))
    for number, ((where, threads), some) in enumerate(roofed.items()):
        title = f"Roofline of {where}, {threads} thread{'s' if threads > 1 else ''}"
        yield Chart(title, speed.roofline(some, f"{name}-roof-{number}"))
    for cost, title in (("latency", "median latency, ms"), ("size", "size, MB")):
        points = [point for one in bundles if (point := _point(one, runs, cost)) is not None]
        if points:
            value = _value_of(bundles[0].record)
            label = value[0] if value is not None else ""
            yield Chart(f"{label} against {title}", speed.pareto(points, title, label, f"{name}-{cost}"))


def _point(one: BundleView, runs: list[RunView], cost: str) -> speed.Point | None:
    value = _value_of(one.record)
    if value is None:
        return None
    at = one.record.size_bytes / 1e6
    if cost == "latency":
        run = next((run.record for run in runs if run.at == one.fastest), None)
        if run is None or run.timing is None:
            return None
        at = run.timing.median_ms
    return speed.Point(one.record.key, one.place, at, *value[1:])


def _value_of(one: Evidence) -> tuple[str, float, float, float] | None:
    """Returns the figure on labelled images with its bounds; None where there is none."""
    manifest = one.manifest
    if manifest.accuracy is not None and one.top1_ci95 is not None:
        low, high = one.top1_ci95
        return "top-1, %", 100 * manifest.accuracy.top1, 100 * low, 100 * high
    if manifest.measured is not None:
        found = manifest.measured.figures[manifest.measured.measure]
        return None if found is None else (manifest.measured.measure, found, found, found)
    return None

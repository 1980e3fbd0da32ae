"""What templates walk over: the record with places, letters and charts beside it, and no number of its own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.deploy.prove.layerwise.records import named
from ghostdeploy.deploy.report import charts
from ghostdeploy.deploy.report.blocks import export_command, in_order
from ghostdeploy.deploy.report.charted import Chart, speed_of
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.preprocess import described

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markupsafe import Markup

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.deploy.prove.layerwise.records import Block, Live
    from ghostdeploy.deploy.report.blocks import Layer
    from ghostdeploy.deploy.report.held import Held
    from ghostdeploy.deploy.report.records import Answers, Evidence, Model, Report, Run

_SECTIONS = (
    ("provenance", "Provenance"),
    ("fold", "Fold"),
    ("proof", "Parity and accuracy"),
    ("answers", "Agreement"),
    ("layers", "Layers"),
    ("speed", "Speed"),
    ("devices", "Devices"),
)
_NOISE = {
    "alone": "where it alone is quantized, weights and input",
    "arriving": "with the error that arrives at it",
}


@dataclass(frozen=True, slots=True)
class HeldView:
    """One live diagnosis."""

    record: Held
    at: str
    manifest: Manifest

    @property
    def worst(self) -> str | None:
        """The first wrong block, by PyTorch names."""
        wrong = self.record.live.wrong
        return named(wrong[0].layers, wrong[0].readers) if wrong else None

    @property
    def blocks(self) -> list[tuple[str, str, bool]]:
        """Names, place and whether it is wrong, worst first."""
        live = self.record.live
        return [
            (named(one.layers, one.readers), f"{self.at}.live.blocks.{place}", _is_wrong(one, live))
            for place, one in enumerate(live.blocks)
        ]

    @property
    def halfway(self) -> str:
        """The block up to which half of the outputs' error arises; empty where they have next to none."""
        half = self.record.live.halfway
        return "" if half is None else named(half.layers)

    @property
    def command(self) -> str | None:
        """What applies the advice."""
        flag = self.record.live.flag
        return None if flag is None else export_command(self.manifest, flag)


@dataclass(frozen=True, slots=True)
class BundleView:
    """One bundle."""

    record: Evidence
    at: str
    """Its place in the record."""
    place: int
    """Among the bundles of its model: colour and marker."""
    fastest: str | None
    """Place of its run with the smallest median latency."""
    noise: Markup | None
    ranges: Markup | None

    @property
    def held(self) -> list[HeldView]:
        """Its live diagnoses."""
        return [
            HeldView(one, f"{self.at}.held.{place}", self.record.manifest) for place, one in enumerate(self.record.held)
        ]

    @property
    def path(self) -> str:
        """Its folder, for a shell."""
        return shlex.quote(self.record.path)

    @property
    def image(self) -> str:
        """How an image becomes its input."""
        return described(self.record.manifest.preprocess)

    @property
    def layers(self) -> list[Layer]:
        """In the order of the network; none without a diagnosis."""
        found = self.record.diagnosis
        return [] if found is None else in_order(found, self.record.manifest)

    @property
    def noise_kind(self) -> str:
        """How the noise of layers was measured."""
        found = self.record.diagnosis
        return "" if found is None else _NOISE[found.noise]


@dataclass(frozen=True, slots=True)
class RunView:
    """One receipt."""

    record: Run
    at: str
    place: int
    """Of its bundle among those of the model."""


@dataclass(frozen=True, slots=True)
class PassRow:
    """A fold pass in every bundle."""

    name: str
    cells: list[str | None]
    """Places of its records, by bundle; None where a bundle's export had no such pass."""


@dataclass(frozen=True, slots=True)
class Row:
    """Of the matrix of agreement."""

    key: str
    cells: list[int | None]
    """Places among the pairs; None on the diagonal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One model."""

    record: Model
    at: str
    id: str
    """Prefix of identifiers on the page."""
    bundles: list[BundleView]
    runs: list[RunView]
    passes: list[PassRow] = field(default_factory=list)
    """Those that changed something in some bundle."""
    idle: list[str] = field(default_factory=list)
    """The others."""
    charts: list[Chart] = field(default_factory=list)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchors and titles."""
        return [(f"{self.id}-{name}", title) for name, title in _SECTIONS]

    @property
    def failing(self) -> list[RunView]:
        """Receipts that did not pass, of bundles that did."""
        passed = {one.record.key for one in self.bundles if one.record.verdict == "passed"}
        return [run for run in self.runs if run.record.verdict != "passed" and run.record.bundle in passed]

    @property
    def timed(self) -> list[RunView]:
        """Receipts with a latency."""
        return [run for run in self.runs if run.record.timing is not None]

    @property
    def untimed(self) -> list[BundleView]:
        """Bundles without one."""
        return [one for one in self.bundles if one.fastest is None]

    @property
    def judged(self) -> bool:
        """Whether anything was measured on real images."""
        return any(m.accuracy or m.measured or m.agreement or m.fidelity for m in self._manifests())

    @property
    def unlabelled(self) -> list[BundleView]:
        """Bundles without a measure on labelled images, and without a receipt that has one."""
        there = {run.record.bundle for run in self.runs if run.record.accuracy or run.record.measure}
        lacking = [one for one in self.bundles if not (one.record.manifest.accuracy or one.record.manifest.measured)]
        return [one for one in lacking if one.record.key not in there and self.record.task != "raw"]

    @property
    def quantized(self) -> bool:
        """Whether a bundle is quantized."""
        return any(m.quantization for m in self._manifests())

    @property
    def unheld(self) -> list[BundleView]:
        """Bundles without a live diagnosis, of targets that show what is inside."""
        return [one for one in self.bundles if not one.record.held and _shows_inside(one.record.manifest.target)]

    @property
    def receipts(self) -> list[str]:
        """Files."""
        return list(dict.fromkeys(run.record.receipt for run in self.runs))

    @property
    def matrix(self) -> list[Row]:
        """Of the pairs of answers."""
        return [] if self.record.answers is None else list(_rows(self.record.answers))

    def _manifests(self) -> list[Manifest]:
        return [one.record.manifest for one in self.bundles]


def views(report: Report) -> list[ModelView]:
    """Returns what templates show of a report, charts included."""
    return [_view(model, f"models.{place}", f"m{place}") for place, model in enumerate(report.models)]


def _view(model: Model, at: str, name: str) -> ModelView:
    places = {one.key: place for place, one in enumerate(model.bundles)}
    runs = [RunView(run, f"{at}.runs.{number}", places[run.bundle]) for number, run in enumerate(model.runs)]
    bundles = [
        BundleView(
            record=one,
            at=f"{at}.bundles.{place}",
            place=place,
            fastest=_fastest(one.key, runs),
            noise=charts.noise(one, place, f"{name}-noise-{one.key}"),
            ranges=charts.ranges(one, place, f"{name}-ranges-{one.key}"),
        )
        for place, one in enumerate(model.bundles)
    ]
    passes, idle = _passes(bundles)
    return ModelView(
        record=model,
        at=at,
        id=name,
        bundles=bundles,
        runs=runs,
        passes=passes,
        idle=idle,
        charts=list(speed_of(bundles, runs, name)),
    )


def _passes(bundles: list[BundleView]) -> tuple[list[PassRow], list[str]]:
    """Returns a row for each pass that changed something, and the names of the others."""
    places = [
        {record.name: f"{one.at}.manifest.passes.{number}" for number, record in enumerate(one.record.manifest.passes)}
        for one in bundles
    ]
    every = {record.name: 0 for one in bundles for record in one.record.manifest.passes}
    for one in bundles:
        for record in one.record.manifest.passes:
            every[record.name] += record.sites
    rows = [PassRow(name, [own.get(name) for own in places]) for name, sites in every.items() if sites]
    return rows, [name for name, sites in every.items() if not sites]


def _fastest(key: str, runs: list[RunView]) -> str | None:
    timed = [(run.record.timing.median_ms, run.at) for run in runs if run.record.bundle == key and run.record.timing]
    return min(timed)[1] if timed else None


def _is_wrong(block: Block, live: Live) -> bool:
    """Returns whether a block is among the wrong ones, whose layers may have been narrowed down."""
    level = block.introduced_db
    return level is not None and any(
        level < one.allowed_db and {*(one.layers or one.readers)} & {*block.layers, *block.readers}
        for one in live.wrong
    )


def _shows_inside(target: str) -> bool:
    try:
        return targets.find(target).probe is not None
    except GhostDeployError:  # of a distribution that is not installed here
        return False


def _rows(found: Answers) -> Iterator[Row]:
    places = {(pair.first, pair.second): number for number, pair in enumerate(found.pairs)}
    for row in found.keys:
        cells = [places.get((row, column), places.get((column, row))) for column in found.keys]
        yield Row(row, cells)

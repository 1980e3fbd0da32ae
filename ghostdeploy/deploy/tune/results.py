"""What `tune` found: a row per bundle, the pick, the last run, and which rows are dominated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.runtimes.interface import Profile  # noqa: TC001 - msgspec resolves annotations at run time

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = Literal["pick", "pareto", "dominated", "beyond the limits", "out"]


class Speed(Record, frozen=True, kw_only=True):
    """A bundle with one setting."""

    threads: int
    profile: Profile
    latency_ms: float
    """Median of a call, over all rounds."""
    images_per_second: float | None
    """Through the queue; None where the objective does not need it."""
    ratio: float
    """Time by the objective over that of the pick, in rounds with both; else through the anchor."""
    ratio_ci95: tuple[float, float]
    rounds: int


class Row(Record, frozen=True, kw_only=True):
    """One bundle, or one that could not be made."""

    target: str
    precision: str
    without: str | None
    """Fold pass that was left out."""
    path: str | None
    place: Place
    why: str | None
    """Why it is out, or which limits it misses."""
    verdict: str | None
    size_bytes: int | None
    drop: float | None
    """Drop of top-1 on labelled images, against the float32 model."""
    agreement: float | None
    """Share of images with the same top-1 class as the float32 model."""
    speeds: tuple[Speed, ...] = ()
    """By setting, the best first by the objective; that of the pick before all."""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.target} {self.precision}" + (f" without {self.without}" if self.without else "")


class Final(Record, frozen=True, kw_only=True):
    """One entry of the last interleaved run."""

    entry: str
    ratio: float
    """Its time over that of the pick."""
    ratio_ci95: tuple[float, float]


class Tuned(Record, frozen=True, kw_only=True):
    """One tune."""

    model: str
    bundle: str
    """The winning bundle."""
    threads: int
    profile: Profile
    """How to load it: `ghostdeploy.load(bundle, threads=…, profile=…)`."""
    latency_ms: float
    images_per_second: float | None
    objective: str
    max_drop: float
    max_size: int | None
    max_latency_ms: float | None
    machine: str
    batch: int
    seconds: float
    """Over all restarts."""
    decided: bool
    """No entry of the last run can be more than 3 % faster than the pick."""
    final: tuple[Final, ...]
    rows: tuple[Row, ...]
    left_out: dict[str, str]
    """Targets that this machine cannot export or run, and why."""
    state: str
    """Folder with all bundles, the journal, `pareto.json` and `pareto.md`."""


def axes(row: Row, objective: str) -> tuple[float, float, float] | None:
    """Returns what a row is judged by, less being better: time, size, loss of accuracy; None for an unmeasured one."""
    if not row.speeds or row.size_bytes is None:
        return None
    best = row.speeds[0]
    queued = objective == "throughput" and best.images_per_second
    time = 1e3 / best.images_per_second if queued and best.images_per_second else best.latency_ms
    loss = row.drop if row.drop is not None else (0.0 if row.agreement is None else 1 - row.agreement)
    return time, float(row.size_bytes), loss


def dominated(rows: Sequence[Row], objective: str) -> set[int]:
    """Returns the places of rows that another one equals or beats in everything, and beats in something."""
    points = {place: point for place, row in enumerate(rows) if (point := axes(row, objective)) is not None}
    return {
        place
        for place, point in points.items()
        if any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points.values())
    }

"""The candidates: rows of the target table × precisions × passes left out, each with the settings it can run with.

A bundle is a `Candidate`. Threads and profile need no new bundle: they are `Setting`s of it, and a candidate with a
setting is an `Entry`, the thing that is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ghostdeploy import targets
from ghostdeploy.deploy.fold.passes import REWRITES
from ghostdeploy.deploy.plan.requirements import require_export
from ghostdeploy.errors import MissingDependency, UnsupportedHardware, UsageError
from ghostdeploy.machine import has_int8_dot_product
from ghostdeploy.runtimes.interface import Profile  # noqa: TC001 - dataclasses of other modules resolve it

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.deploy.tune.place import Place
    from ghostdeploy.targets import Target

Objective = Literal["latency", "throughput", "size"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput", "size")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One bundle to try."""

    target: str
    precision: str
    without: str | None = None
    """The fold pass that is left out; None is none."""

    @property
    def name(self) -> str:
        """For tables and the journal."""
        left_out = "" if self.without is None else f" without {self.without}"
        return f"{self.target} {self.precision}{left_out}"

    @property
    def folder(self) -> str:
        """Folder of the state that holds its bundle."""
        return "all-passes" if self.without is None else f"without-{self.without}"


@dataclass(frozen=True, slots=True)
class Setting:
    """How a bundle is run."""

    threads: int
    profile: Profile

    @property
    def name(self) -> str:
        """For tables and the journal."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return threads if self.profile == "latency" else f"{threads} for {self.profile}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A bundle and how it is run."""

    candidate: Candidate
    setting: Setting

    @property
    def key(self) -> str:
        """Its name in the journal."""
        return f"{self.candidate.name}, {self.setting.name}"


def why_not(row: Target, intake: Target | None, place: Place) -> str | None:
    """Returns why a row cannot be exported here and run at a place; None where it can."""
    if not targets.takes(row, intake):
        return f"is made from the PyTorch model, MODEL has format {intake.name if intake else 'another kind'}"
    if lacking := targets.missing_for_export(row, intake):
        return f"needs {', '.join(lacking)}, not installed here"
    return place.why_not(row)


def choose_rows(names: Sequence[str], intake: Target | None, place: Place) -> tuple[list[Target], dict[str, str]]:
    """Returns the rows to try, and why others are left out.

    Args:
        names: Targets that the user requested; empty or `all` is every one that can be exported here and run there.
        intake: Row whose finished file the model is; None is PyTorch.
        place: Where bundles run.

    Raises:
        UsageError: An unknown target, or one that cannot be made from such a file.
        MissingDependency: A package that a requested target needs is absent, or no target can be tried at all.
        UnsupportedHardware: The place cannot run a requested target.
    """
    asked = [] if "all" in names else [targets.find(name) for name in dict.fromkeys(names)]
    require_export(asked, intake)
    left_out = {row.name: why for row in targets.TARGETS.values() if (why := why_not(row, intake, place))}
    for row in asked:
        if row.name in left_out:
            kind = MissingDependency if targets.missing_for_run(row) else UnsupportedHardware
            raise kind(f"target {row.name} {left_out[row.name]}", hint="ghostdeploy doctor")
    rows = asked or [row for row in targets.TARGETS.values() if row.name not in left_out]
    if not rows:
        raise MissingDependency("no target can be exported here and run there", hint="ghostdeploy doctor")
    return rows, {} if asked else left_out


def enumerate_candidates(
    rows: Iterable[Target], precisions: Collection[str], flags: Collection[str]
) -> list[Candidate]:
    """Returns the candidates with all passes, in the order in which they are exported.

    What is likely to win comes first: INT8 where the processor has instructions for it, weight-only INT8 elsewhere;
    float16 files are computed in float32 on CPUs and are only smaller.

    Args:
        rows: Targets to try.
        precisions: Names of `targets.PRECISIONS`.
        flags: Processor flags, see `machine.cpu_flags`.

    Raises:
        UsageError: No target makes any of the precisions.
    """
    fast = ("int8", "hybrid") if has_int8_dot_product(flags) else ("hybrid", "int8")
    order = ("fp32", *fast, "fp16")
    rows = list(rows)
    found = [
        Candidate(row.name, precision)
        for precision in sorted(targets.PRECISIONS, key=order.index)
        for row in rows
        if precision in precisions and precision in row.precisions
    ]
    if not found:
        makes = "; ".join(f"{row.name} makes {', '.join(row.precisions)}" for row in rows)
        raise UsageError(f"no target makes {', '.join(precisions)}", hint=makes)
    return found


def without_single_passes(candidate: Candidate, manifest: Manifest) -> list[Candidate]:
    """Returns a candidate per rewrite for speed that changed something in its graph: without that one.

    Args:
        candidate: One with all passes.
        manifest: Of its bundle. A pass without a site there would give the same file.
    """
    changed = {record.name for record in manifest.passes if record.sites}
    return [Candidate(candidate.target, candidate.precision, name) for name in REWRITES if name in changed]


def settings(cores: int, objective: Objective) -> list[Setting]:
    """Returns the settings to try: 1, 2, 4, … threads and all cores.

    The profile `throughput` runs one thread per call, so it matters to nobody who waits for one call at a time.

    Args:
        cores: Physical cores that this process may keep busy.
        objective: What is wanted.
    """
    counts = sorted({min(2**k, cores) for k in range(cores.bit_length() + 1)})
    found = [Setting(threads, "latency") for threads in counts]
    if objective == "throughput":
        found += [Setting(threads, "throughput") for threads in counts]
    return found

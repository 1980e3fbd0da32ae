"""The entries of one run: which can be measured, which meet the limits, and their ranking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ghostdeploy.deploy.tune import contest
from ghostdeploy.deploy.tune.candidates import Entry

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.tune.candidates import Candidate, Setting
    from ghostdeploy.deploy.tune.contest import Kind, Ratio
    from ghostdeploy.deploy.tune.journal import Journal
    from ghostdeploy.deploy.tune.request import TuneConfig

QUICK_ROUNDS = 8
"""Rounds with the anchor that every entry gets; below six a median has no 95 % interval."""


@dataclass(slots=True)
class Contenders:
    """All candidates of one run and what is known about them.

    Args:
        config: The request.
        journal: What was measured and refused.
        settings: How each bundle can be run.
    """

    config: TuneConfig
    journal: Journal
    settings: list[Setting]
    bundles: dict[Candidate, Bundle] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What is compared: times of calls, or of queued images."""
        return "queued" if self.config.objective == "throughput" else "calls"

    def entries(self) -> dict[str, Entry]:
        """Returns what can be measured, by key: bundles that passed their gates, with settings that work."""
        passed = [one for one, bundle in self.bundles.items() if bundle.manifest.verdict == "passed"]
        found = {entry.key: entry for one in passed for entry in (Entry(one, how) for how in self.settings)}
        refused = self.journal.refused
        return {key: entry for key, entry in found.items() if key not in refused}

    def unmeasured(self) -> list[str]:
        """Returns the entries that still need their rounds with the anchor."""
        found = self.scores()
        return [key for key in self.entries() if key not in found or found[key].rounds < QUICK_ROUNDS]

    def anchor(self) -> str | None:
        """Returns the entry that is in every quick round."""
        return contest.find_anchor(self.journal.rounds, list(self.entries()), self.kind)

    def scores(self) -> dict[str, Ratio]:
        """Returns the ratio of each measured entry to the anchor, the best first."""
        return contest.scores(self.journal.rounds, list(self.entries()), self.kind)

    def latency_ms(self, key: str) -> float | None:
        """Returns the median latency of an entry."""
        seconds = contest.median_time(self.journal.rounds, key, "calls")
        return None if seconds is None else 1e3 * seconds

    def figure(self, key: str) -> str:
        """Returns an entry with what the objective looks at, for people."""
        seconds = contest.median_time(self.journal.rounds, key, self.kind)
        if seconds is None:
            return key
        speed = f"{1 / seconds:.0f} images/s" if self.kind == "queued" else f"{1e3 * seconds:.3f} ms"
        size = self.bundles[self.entries()[key].candidate].size
        return f"{key}: {size / 1e6:.2f} MB, {speed}" if self.config.objective == "size" else f"{key}: {speed}"

    def excess(self, key: str) -> dict[str, float]:
        """Returns by how much of itself each missed limit is missed, by option; empty for an entry within all."""
        size, latency = self.bundles[self.entries()[key].candidate].size, self.latency_ms(key)
        pairs = (("--max-size", size, self.config.max_size), ("--max-latency", latency, self.config.max_latency))
        return {
            option: value / limit - 1
            for option, value, limit in pairs
            if value is not None and limit is not None and value > limit
        }

    def standing(self) -> dict[str, Ratio]:
        """Returns the scores of the entries that may be picked, the best first.

        With the objective `size` these are the settings of the smallest bundle within the limits.
        """
        entries = self.entries()
        found = {key: score for key, score in self.scores().items() if not self.excess(key)}
        if self.config.objective != "size" or not found:
            return found
        sizes = {key: self.bundles[entries[key].candidate].size for key in found}
        return {key: score for key, score in found.items() if sizes[key] == min(sizes.values())}

    def near(self, factor: float) -> list[Candidate]:
        """Returns the candidates whose best setting takes at most `factor` times what the best one takes, in order."""
        found = self.standing() or self.scores()
        if not found:
            return []
        entries, best = self.entries(), next(iter(found.values())).value
        return list(dict.fromkeys(entries[key].candidate for key, one in found.items() if one.value <= factor * best))

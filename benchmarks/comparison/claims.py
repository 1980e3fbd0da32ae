"""The ratios that decide: what an export of ours has to reach, and what it reached.

    G(r) = Π_m ratio_m(r)^(1/M)       geometric mean of M networks in round r; median over r and its interval

Ours is the artefact with float activations: `hybrid` where the target makes it, else `fp32`; INT8 stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

from comparison.contest import NETWORKS, RIVAL
from comparison.run import Entry, Group, ratios, shown
from ghostdeploy.statistics import quantile
from ghostdeploy.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUTES = tuple(row.name for row in TARGETS.values() if row.default_route is not None)
LIMITS = {"ghostnet": 0.80, "ghostnet_v2": 0.90, "ghostnet_v3": 0.90, "repghost": 0.90, "g_ghost_regnet": 0.95}
EXCEPTIONS = {("ghostnet", "onnx"): 0.85}
BEST_LIMIT = 0.80
MERGED = "merged"


@dataclass(frozen=True, slots=True)
class Claim:
    """One ratio with its limit."""

    text: str
    rounds: list[float]
    limit: float
    beside: str = ""
    """What else is to be known."""

    @property
    def ratio(self) -> float:
        """The median over rounds."""
        return quantile(self.rounds, 0.5)

    @property
    def met(self) -> bool:
        """Whether the ratio is within its limit."""
        return self.ratio <= self.limit

    def line(self) -> str:
        """Returns one row of the table."""
        verdict = "met" if self.met else "**not met**"
        return f"| {self.text} | {shown(self.rounds)} | ≤ {self.limit:.2f} | {verdict} | {self.beside} |"


def ours(group: Group, network: str, target: str) -> Entry | None:
    """Returns our artefact with float activations."""
    found = (group.find(network, f"ours-{target}-{precision}") for precision in ("hybrid", "fp32"))
    return next((one for one in found if one is not None), None)


def geometric(rows: Iterable[list[float]]) -> list[float]:
    """Returns the geometric mean of each round over the rows."""
    return [exp(sum(map(log, values)) / len(values)) for values in zip(*rows, strict=True)]


def claims(groups: dict[str, Group], across: dict[str, Group]) -> list[Claim]:
    """Returns all claims that the measured groups can decide.

    Args:
        groups: By network, batch 1, one thread.
        across: By target: all networks in one run.
    """
    rivals = [claim for target, group in across.items() for claim in _rivals(group, target)]
    return [*_families(groups), *_singles(groups), *_best(groups), *rivals]


def _families(groups: dict[str, Group]) -> list[Claim]:
    found = []
    for family, usual in LIMITS.items():
        names = [one.name for one in NETWORKS if one.family == family and one.name in groups]
        for target in ROUTES:
            rows = {name: _against(groups[name], name, target, "default") for name in names}
            rows = {name: rounds for name, rounds in rows.items() if rounds}
            if not rows:
                continue
            merged = [one for name in names if (one := _against(groups[name], name, target, MERGED))]
            int8 = [one for name in names if (one := _against(groups[name], name, target, "default", "int8"))]
            beside = [f"over {', '.join(rows)}"]
            beside += [f"to the merged form {quantile(geometric(merged), 0.5):.3f}"] if merged else []
            beside += [f"int8 {quantile(geometric(int8), 0.5):.3f}"] if int8 else []
            limit = EXCEPTIONS.get((family, target), usual)
            text = f"{family}, {target}: ours / default, geometric mean"
            found.append(Claim(text, geometric(rows.values()), limit, "; ".join(beside)))
    return found


def _against(group: Group, network: str, target: str, other: str, precision: str | None = None) -> list[float]:
    own = ours(group, network, target) if precision is None else group.find(network, f"ours-{target}-{precision}")
    theirs = group.find(network, f"{other}-{target}")
    return ratios(own, theirs) if own is not None and theirs is not None else []


def _singles(groups: dict[str, Group]) -> list[Claim]:
    """The worst single network: none may be slower than its default route."""
    ghosts = [one.name for one in NETWORKS if one.family in LIMITS and one.name in groups]
    rows = {
        (name, t): rounds for name in ghosts for t in ROUTES if (rounds := _against(groups[name], name, t, "default"))
    }
    if not rows:
        return []
    worst = max(rows, key=lambda key: quantile(rows[key], 0.5))
    beside = f"the worst of {len(rows)}: {worst[0]} on {worst[1]}"
    return [Claim("no single network slower than its default route", rows[worst], 1.0, beside)]


def _best(groups: dict[str, Group]) -> list[Claim]:
    name = RIVAL[0]
    if name not in groups:
        return []
    group = groups[name]
    own = [one for one in group.entries if one.engine.startswith("ours-")]
    theirs = [one for one in group.entries if not one.engine.startswith("ours-")]
    if not own or not theirs:
        return []
    ahead = min(theirs, key=lambda one: one.milliseconds)
    found = []
    for text, kept in (("", own), (", without INT8", [one for one in own if not one.engine.endswith("int8")])):
        if kept:
            best = min(kept, key=lambda one: one.milliseconds)
            title = f"best of ours / best of all peers, {name}{text}"
            found.append(Claim(title, ratios(best, ahead), BEST_LIMIT, f"{best.engine} / {ahead.engine}"))
    return found


def _rivals(group: Group, target: str) -> list[Claim]:
    found = []
    ghost = ours(group, RIVAL[0], target)
    for label, mobile in (
        ("default export of", group.find(RIVAL[1], f"default-{target}")),
        ("our export of", ours(group, RIVAL[1], target)),
    ):
        if ghost is not None and mobile is not None:
            text = f"{RIVAL[0]} / {label} {RIVAL[1]}, {target}"
            found.append(Claim(text, ratios(ghost, mobile), 1.0, f"{ghost.engine} / {mobile.engine}"))
    return found

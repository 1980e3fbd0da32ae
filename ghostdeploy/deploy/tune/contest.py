"""Who is faster, from rounds in which both were measured.

With m(e, r) the time of entry e in round r,

    ratio(a, b) = median over the rounds r that hold both of  m(a, r) / m(b, r)

with its 95 % interval by order statistics. A round measures its entries one after the other within a second or two, so
what slows the machine down slows both. Entries that never shared a round are compared through the anchor, which is in
every round: score(e) = ratio(e, anchor).

A contest is decided when no other entry can be more than `MARGIN` faster than the leader: the lower end of its ratio
to the leader is at least 1 − MARGIN.

Extra threads must pay for their cores. How long a sleeping core takes to wake is up to the operating system, and inside
a virtual machine up to the host too; it was seen to change from one minute to the next, and with it the time of a short
call with two threads by a factor of 2.3, that of one thread not at all. So an entry with more threads is better than
one with fewer only if, in every session (processes started together, minutes apart) with both,

    the upper end of ratio(more, fewer) < 1 − MARGIN
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ghostdeploy.statistics import median_interval, quantile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ghostdeploy.deploy.tune.journal import Round

MARGIN = 0.03
Kind = Literal["calls", "queued"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median of ratios with its 95 % interval."""

    value: float
    low: float
    high: float
    rounds: int


def times(found: Round, kind: Kind) -> dict[str, float]:
    """Returns the seconds of one round, by entry."""
    return found.calls if kind == "calls" else found.queued


def ratio(rounds: Iterable[Round], ours: str, theirs: str, kind: Kind) -> Ratio | None:
    """Returns how much longer `ours` takes than `theirs`; None when they never shared a round."""
    both = (times(one, kind) for one in rounds)
    values = [seen[ours] / seen[theirs] for seen in both if ours in seen and theirs in seen]
    if not values:
        return None
    low, high = median_interval(values)
    return Ratio(quantile(values, 0.5), low, high, len(values))


def median_time(rounds: Iterable[Round], key: str, kind: Kind) -> float | None:
    """Returns the median seconds of an entry; None when it was never measured."""
    values = [seen[key] for one in rounds if key in (seen := times(one, kind))]
    return quantile(values, 0.5) if values else None


def find_anchor(rounds: Iterable[Round], alive: Sequence[str], kind: Kind) -> str | None:
    """Returns the entry that all others are compared with: the first that was measured and is still alive.

    Args:
        rounds: All measurements.
        alive: Entries that can be run, in order; the first of them where none was measured.
        kind: What is compared.
    """
    living = set(alive)
    measured = (key for one in rounds for key in times(one, kind) if key in living)
    return next(measured, next(iter(alive), None))


def scores(rounds: Sequence[Round], alive: Sequence[str], kind: Kind) -> dict[str, Ratio]:
    """Returns the ratio of each measured entry to the anchor, the best first."""
    anchor = find_anchor(rounds, alive, kind)
    found = {key: score for key in alive if anchor and (score := ratio(rounds, key, anchor, kind)) is not None}
    return dict(sorted(found.items(), key=lambda item: item[1].value))


def contenders(found: dict[str, Ratio], most: int) -> list[str]:
    """Returns the entries that may be the best, the leader first.

    Args:
        found: Scores, the best first.
        most: Entries to keep.
    """
    if not found:
        return []
    leader = next(iter(found.values()))
    return [key for key, score in found.items() if score.low <= max(leader.high, leader.value / (1 - MARGIN))][:most]


def is_decided(rounds: Sequence[Round], leader: str, others: Collection[str], kind: Kind) -> bool:
    """Returns whether no other entry can be more than `MARGIN` faster than the leader."""
    found = [ratio(rounds, key, leader, kind) for key in others if key != leader]
    return all(one is not None and one.low >= 1 - MARGIN for one in found)


def placed(rounds: Sequence[Round], kind: Kind) -> list[str]:
    """Returns the entries of one session that are still alive at its end, the fastest first."""
    keys = list(times(rounds[-1], kind)) if rounds else []
    found = {key: one.value for key in keys if (one := ratio(rounds, key, keys[0], kind)) is not None}
    return sorted(found, key=lambda key: found[key])


def is_faster_always(rounds: Sequence[Round], ours: str, theirs: str, kind: Kind) -> bool:
    """Returns whether `ours` was more than `MARGIN` faster in every session of both; no session is no evidence."""
    sittings: dict[int, list[Round]] = {}
    for one in rounds:
        sittings.setdefault(one.sitting, []).append(one)
    found = [seen for mine in sittings.values() if (seen := ratio(mine, ours, theirs, kind)) is not None]
    return bool(found) and all(one.high < 1 - MARGIN for one in found)


def settle(rounds: Sequence[Round], order: Sequence[str], threads: Mapping[str, int], kind: Kind) -> str:
    """Returns the entry to pick: the fastest, or one with fewer threads that it does not beat in every session.

    Args:
        rounds: All measurements.
        order: The entries of the last run, the fastest first.
        threads: Of each of them.
        kind: What is compared.
    """
    pick = order[0]
    while (fewer := next((key for key in order if threads[key] < threads[pick]), None)) is not None:
        if is_faster_always(rounds, pick, fewer, kind):
            break
        pick = fewer
    return pick

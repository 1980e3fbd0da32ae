"""The order of a run. Anything already in the journal or the state folder is not done again.

    part of the budget        what is started before it is used up
    EXPORT_SHARE      60 %    exports with all passes (one always)
    VARIANT_SHARE     75 %    exports without single passes, of what is near the best
    CONTEST_SHARE     90 %    rounds of the close contenders

The rest is for the last run, which always takes place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.deploy.measure.bench_worker import Job
from ghostdeploy.deploy.tune import contest
from ghostdeploy.deploy.tune.candidates import Candidate, without_single_passes
from ghostdeploy.deploy.tune.contenders import QUICK_ROUNDS
from ghostdeploy.deploy.tune.exporting import groups
from ghostdeploy.deploy.tune.journal import Exported, Picked, Refused, Round
from ghostdeploy.deploy.tune.limits import require_bundles, require_within_limits
from ghostdeploy.errors import ExportFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.deploy.tune.candidates import Entry
    from ghostdeploy.deploy.tune.contenders import Contenders
    from ghostdeploy.deploy.tune.exporting import Workshop
    from ghostdeploy.deploy.tune.journal import Journal
    from ghostdeploy.deploy.tune.place import Place
    from ghostdeploy.deploy.tune.progress import Progress

EXPORT_SHARE, VARIANT_SHARE, CONTEST_SHARE = 0.60, 0.75, 0.90
NEAR = 1.25
"""Passes are left out of candidates that take at most this times what the best one takes."""
WAVE = 16
"""Processes at a time in the quick rounds: each holds an engine and a model in memory."""
CONTENDERS = 8
CONTEST_ROUNDS = 60
FINALISTS = 4
FINAL_ROUNDS = 20


class Tuning:
    """One run over one state folder.

    Args:
        contenders: What is known; filled on the way.
        workshop: Makes bundles.
        journal: Open and locked.
        progress: Called for every step.
        place: Where bundles are measured.
    """

    def __init__(
        self, contenders: Contenders, workshop: Workshop, journal: Journal, progress: Progress, place: Place
    ) -> None:
        self.contenders = contenders
        self._place = place
        self._workshop = workshop
        self._journal = journal
        self._progress = progress
        self.considered: list[Candidate] = []
        """All candidates, those that were not exported included."""

    def run(self, candidates: list[Candidate]) -> Picked:
        """Exports, measures and picks.

        Args:
            candidates: With all passes, in the order in which they are exported.

        Raises:
            ExportFailed: No candidate could be made or run.
            GateFailed: None passed its gates, or none is within the limits.
        """
        asked = self._asked(candidates)
        finished = self._finished(asked)
        if finished is not None:
            self._progress.close()
        self._export(candidates, EXPORT_SHARE)
        require_bundles(self.contenders, candidates)
        self._measure()
        self._export(self._variants(), VARIANT_SHARE)
        self._measure()
        require_within_limits(self.contenders)
        return finished if finished is not None and finished.pick in self.contenders.entries() else self._pick(asked)

    def _export(self, candidates: list[Candidate], until: float) -> None:
        """Exports what is not there; starts nothing that would end beyond `until`, as far as that is known."""
        self.considered += candidates
        refused, progress, todo = self._journal.refused, self._progress, []
        for one in candidates:
            if one.name in refused:
                continue
            if (bundle := self._workshop.take_over(one)) is not None:
                self.contenders.bundles[one] = bundle
            else:
                todo.append(one)
        progress.expect(len(todo))
        for group in groups(todo):
            if self.contenders.bundles and not progress.is_within(until, ahead=self._expected(group)):
                progress.end(len(group))
                continue
            self._make(group)
            progress.end(len(group))
            self._measure()

    def _make(self, group: list[Candidate]) -> None:
        begin = self._progress.spent
        self._progress.begin(f"export {', '.join(one.target for one in group)} {group[0].name.partition(' ')[2]}")
        failed = self._workshop.make(group, self._progress)
        spent = self._progress.spent
        for one, why in failed.items():
            self._journal.append(Refused(what=one.name, why=why, spent=spent))
        made = [one for one in group if one not in failed]
        names = tuple(one.name for one in made)
        if made:
            self._journal.append(Exported(candidates=names, seconds=spent - begin, spent=spent))
        for one in made:
            bundle = self._workshop.take_over(one)
            assert bundle is not None  # it was written and judged a moment ago
            self.contenders.bundles[one] = bundle

    def _expected(self, group: list[Candidate]) -> float:
        """Returns the seconds that as many exports of the same precision took; 0 where there were none."""
        precisions = {one.name: one.precision for one in self.contenders.bundles}
        return max(
            (
                event.seconds * min(1.0, len(group) / len(event.candidates))
                for event in self._journal.events
                if isinstance(event, Exported) and precisions.get(event.candidates[0]) == group[0].precision
            ),
            default=0.0,
        )

    def _variants(self) -> list[Candidate]:
        """Returns the near candidates without single passes, and what an earlier run made of others.

        Those of one precision and pass stand side by side, the best first.
        """
        if self._workshop.model.intake is not None:
            return []
        near, found = self.contenders.near(NEAR), []
        for one in dict.fromkeys((*near, *self.contenders.bundles)):
            if one.without is None:
                variants = without_single_passes(one, self.contenders.bundles[one].manifest)
                found += [v for v in variants if one in near or self._workshop.take_over(v) is not None]
        ranks = {key: rank for rank, key in enumerate(dict.fromkeys((v.precision, v.without) for v in found))}
        return sorted(found, key=lambda one: ranks[one.precision, one.without])

    def _measure(self) -> None:
        """Gives every entry its quick rounds, a few processes at a time, the anchor among them."""
        self._progress.expect(len(self.contenders.unmeasured()))
        while todo := self.contenders.unmeasured():
            if self.contenders.scores() and not self._progress.is_within(CONTEST_SHARE):
                return
            wave = todo[: WAVE - 1]
            anchor = self.contenders.anchor()
            together = wave if anchor is None or anchor in wave else [anchor, *wave]
            self._sit(together, QUICK_ROUNDS, f"measure {len(wave)} of {len(todo)}", self._lead_by_score)
            self._progress.end(len(wave))

    def _pick(self, asked: str) -> Picked:
        """Lets the close contenders run until they are apart, and the best of them once more in fresh processes."""
        self._progress.expect(2)
        order = self._contest(contest.contenders(self.contenders.standing(), CONTENDERS))
        self._progress.end()
        finalists = self._finalists(order)
        self._progress.lead(self.contenders.figure(finalists[0]))  # known, too, where no time was left for a contest
        sitting, rounds = self._sit(finalists, FINAL_ROUNDS, "last run", lambda rounds: not self._lead(rounds))
        if not rounds:
            raise ExportFailed(f"none of {', '.join(finalists)} could be run", hint="ghostdeploy doctor")
        kind = self.contenders.kind
        pick = contest.settle(self._journal.rounds, contest.placed(rounds, kind), self._threads(finalists), kind)
        budget, spent = self.contenders.config.budget, self._progress.spent
        picked = Picked(sitting=sitting, asked=asked, budget=budget, pick=pick, spent=spent)
        self._journal.append(picked)
        self._progress.end()
        return picked

    def _contest(self, keys: list[str]) -> list[str]:
        """Returns the contenders, the best first."""
        if len(keys) < 2 or not self._progress.is_within(CONTEST_SHARE):
            return keys
        kind = self.contenders.kind

        def is_enough(rounds: list[Round]) -> bool:
            leader = self._lead(rounds)
            decided = contest.is_decided(rounds, leader, list(contest.times(rounds[-1], kind)), kind)
            return (len(rounds) >= QUICK_ROUNDS and decided) or not self._progress.is_within(CONTEST_SHARE)

        _, rounds = self._sit(keys, CONTEST_ROUNDS, f"compare {len(keys)} contenders", is_enough)
        return contest.placed(rounds, kind)

    def _finalists(self, order: list[str]) -> list[str]:
        """Returns the entries of the last run: the best few, and the best with fewer threads than the first of them."""
        standing = self.contenders.standing()  # without those that died in the contest
        ranked = [key for key in dict.fromkeys((*order, *standing)) if key in standing]
        threads = self._threads(ranked)
        fewer = [key for key in ranked[1:] if threads[key] < threads[ranked[0]]]
        return list(dict.fromkeys((*ranked[:FINALISTS], *fewer[:1])))

    def _threads(self, keys: list[str]) -> dict[str, int]:
        entries = self.contenders.entries()
        return {key: entries[key].setting.threads for key in keys}

    def _lead(self, rounds: list[Round]) -> str:
        """Shows who leads in a sitting, and returns it."""
        leader = contest.placed(rounds, self.contenders.kind)[0]
        self._progress.lead(self.contenders.figure(leader))
        return leader

    def _lead_by_score(self, _: list[Round]) -> bool:
        """Shows who leads in all; a quick round is never enough before its time."""
        if (best := next(iter(self.contenders.standing()), None)) is not None:
            self._progress.lead(self.contenders.figure(best))
        return False

    def _sit(
        self, keys: list[str], most: int, step: str, is_enough: Callable[[list[Round]], bool]
    ) -> tuple[int, list[Round]]:
        """Measures entries in turn; returns the number of the session and its rounds, which are in the journal."""
        entries, progress, journal = self.contenders.entries(), self._progress, self._journal
        sitting = 1 + max((one.sitting for one in journal.rounds), default=0)
        mine: list[Round] = []

        def heard(calls: dict[str, float], queued: dict[str, float]) -> bool:
            mine.append(Round(sitting=sitting, calls=calls, queued=queued, spent=progress.spent))
            journal.append(mine[-1])
            progress.started(f"round {len(mine)} of {most}")
            return is_enough(mine)

        progress.begin(step)
        batch = self.contenders.config.export.batch or 1
        self._place.take_turns(
            {key: self._job(entries[key], batch) for key in keys},
            rounds=most,
            queue=self.contenders.kind == "queued",
            on_round=heard,
            on_failure=lambda key, why: journal.append(Refused(what=key, why=why, spent=progress.spent)),
            on_start=lambda key: progress.started(f"load {key}"),
        )
        return sitting, mine

    def _job(self, entry: Entry, batch: int) -> Job:
        path, setting = self._workshop.path(entry.candidate), entry.setting
        return Job(path=str(path), threads=setting.threads, batch=batch, profile=setting.profile)

    def _asked(self, candidates: list[Candidate]) -> str:
        config = self.contenders.config
        names = sorted(one.name for one in candidates)
        return msgspec.json.encode((config.objective, config.max_size, config.max_latency, names)).decode()

    def _finished(self, asked: str) -> Picked | None:
        """Returns the end of the same request with the same budget or more; None where there is none."""
        ends = [event for event in self._journal.events if isinstance(event, Picked) and event.asked == asked]
        return ends[-1] if ends and ends[-1].budget >= self.contenders.config.budget else None

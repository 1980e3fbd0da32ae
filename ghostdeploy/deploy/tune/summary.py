"""From the journal to the record of a run: a row per candidate, the pick, and who is dominated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.deploy.tune import contest
from ghostdeploy.deploy.tune.candidates import Entry, Setting
from ghostdeploy.deploy.tune.results import Final, Row, Speed, Tuned, dominated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.deploy.tune.candidates import Candidate
    from ghostdeploy.deploy.tune.contenders import Contenders
    from ghostdeploy.deploy.tune.contest import Ratio
    from ghostdeploy.deploy.tune.exporting import Workshop
    from ghostdeploy.deploy.tune.journal import Picked


def summarize(
    contenders: Contenders, workshop: Workshop, picked: Picked, candidates: Sequence[Candidate], *, machine: str
) -> Tuned:
    """Returns the record of a run.

    Args:
        contenders: What is known.
        workshop: Knows where bundles are.
        picked: The end of the last run.
        candidates: All that were considered, those that were not exported included.
        machine: Where the times come from.
    """
    config, kind = contenders.config, contenders.kind
    entry = contenders.entries()[picked.pick]
    last = [one for one in contenders.journal.rounds if one.sitting == picked.sitting]
    keys = list(contest.times(last[-1], kind))
    final = [_final(key, found) for key in keys if (found := contest.ratio(last, key, picked.pick, kind)) is not None]
    speed = _speed(entry, contenders, picked.pick)
    assert speed is not None  # the pick was measured a moment ago
    return Tuned(
        model=workshop.name,
        bundle=str(config.export.out / workshop.path(entry.candidate).name),
        threads=speed.threads,
        profile=speed.profile,
        latency_ms=speed.latency_ms,
        images_per_second=speed.images_per_second,
        objective=config.objective,
        max_drop=config.export.top1_drop,
        max_size=config.max_size,
        max_latency_ms=config.max_latency,
        machine=machine,
        batch=config.export.batch or 1,
        seconds=picked.spent,
        decided=contest.is_decided(last, picked.pick, keys, kind),
        final=tuple(sorted(final, key=lambda one: one.ratio)),
        rows=_placed([_row(one, contenders, workshop, picked.pick) for one in candidates], entry, config.objective),
        left_out=config.left_out,
        state=str(workshop.state),
    )


def _final(key: str, found: Ratio) -> Final:
    return Final(entry=key, ratio=found.value, ratio_ci95=(found.low, found.high))


def _placed(rows: list[Row], pick: Entry, objective: str) -> tuple[Row, ...]:
    """Returns the rows with the picked and the dominated ones marked, the fastest first."""
    losers = dominated(rows, objective)
    found = []
    for index, row in enumerate(rows):
        if (row.target, row.precision, row.without) == (
            pick.candidate.target,
            pick.candidate.precision,
            pick.candidate.without,
        ):
            found.append(msgspec.structs.replace(row, place="pick"))
        elif row.place == "pareto" and index in losers:
            found.append(msgspec.structs.replace(row, place="dominated"))
        else:
            found.append(row)
    return tuple(sorted(found, key=lambda row: row.speeds[0].ratio if row.speeds else float("inf")))


def _row(one: Candidate, contenders: Contenders, workshop: Workshop, pick: str) -> Row:
    bundle = contenders.bundles.get(one)
    speeds = [speed for how in contenders.settings if (speed := _speed(Entry(one, how), contenders, pick)) is not None]
    picked = contenders.entries()[pick].setting if contenders.entries()[pick].candidate == one else None
    speeds.sort(key=lambda speed: (_setting(speed) != picked, bool(_excess(one, speed, contenders)), speed.ratio))
    manifest = None if bundle is None else bundle.manifest
    why = _why(one, contenders)
    beyond = _excess(one, speeds[0], contenders) if speeds else {}
    misses = ", ".join(f"{option} by {excess:.0%}" for option, excess in beyond.items())
    return Row(
        target=one.target,
        precision=one.precision,
        without=one.without,
        path=None if bundle is None else str(workshop.path(one)),
        place="out" if why else "beyond the limits" if misses else "pareto",
        why=why or (f"misses {misses}" if misses else None),
        verdict=None if manifest is None else manifest.verdict,
        size_bytes=None if bundle is None else bundle.size,
        drop=None if manifest is None or manifest.accuracy is None else manifest.accuracy.drop,
        agreement=None if manifest is None else _agreement(manifest),
        speeds=tuple(speeds),
    )


def _agreement(manifest: Manifest) -> float | None:
    if manifest.fidelity is not None:
        return manifest.fidelity.agreement
    return None if manifest.agreement is None else manifest.agreement.top1


def _why(one: Candidate, contenders: Contenders) -> str | None:
    """Returns why a candidate is out, None where it is not."""
    refused = contenders.journal.refused
    if one.name in refused:
        return refused[one.name]
    if one not in contenders.bundles:
        return "not exported: the budget was spent"
    manifest = contenders.bundles[one].manifest
    if manifest.verdict != "passed":
        return manifest.failed_because or manifest.unverified_because or manifest.verdict
    keys = [Entry(one, how).key for how in contenders.settings]
    if any(key in contenders.scores() for key in keys):
        return None
    return next((refused[key] for key in keys if key in refused), "not measured: the budget was spent")


def _speed(entry: Entry, contenders: Contenders, pick: str) -> Speed | None:
    """Returns how fast an entry is; None where it was not measured."""
    rounds, kind = contenders.journal.rounds, contenders.kind
    if entry.key not in contenders.entries():
        return None
    latency = contenders.latency_ms(entry.key)
    found = contest.ratio(rounds, entry.key, pick, kind) or _through_anchor(entry.key, contenders, pick)
    if latency is None or found is None:
        return None
    queued = contest.median_time(rounds, entry.key, "queued")
    return Speed(
        threads=entry.setting.threads,
        profile=entry.setting.profile,
        latency_ms=latency,
        images_per_second=None if queued is None else 1 / queued,
        ratio=found.value,
        ratio_ci95=(found.low, found.high),
        rounds=found.rounds,
    )


def _through_anchor(key: str, contenders: Contenders, pick: str) -> Ratio | None:
    scores = contenders.scores()
    if key not in scores or pick not in scores:
        return None
    ours, best = scores[key], scores[pick]
    return contest.Ratio(ours.value / best.value, ours.low / best.high, ours.high / best.low, ours.rounds)


def _excess(one: Candidate, speed: Speed, contenders: Contenders) -> dict[str, float]:
    return contenders.excess(Entry(one, _setting(speed)).key)


def _setting(speed: Speed) -> Setting:
    return Setting(speed.threads, speed.profile)

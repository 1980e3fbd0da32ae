"""Was the pick of `ghostdeploy tune` right? All that was near it, measured again in one interleaved run.

    python benchmarks/tune_pick.py build/ghostnet_050-tune [--near 1.25] [--rounds 30] [--json]

Reads `pareto.json` in the state folder, starts a fresh process for every bundle and setting whose time was at most
`--near` times that of the pick, lets them take turns, and prints their times over that of the pick. The pick holds when
it is within 3 % of the best of them, whatever bundle and setting that is. What the best of the other bundles takes is
printed as well: threads alone may move a short call by more than that, see docs/tuning.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from ghostdeploy.deploy.measure.bench_worker import Job
from ghostdeploy.deploy.measure.turns import take_turns
from ghostdeploy.deploy.tune import contest
from ghostdeploy.deploy.tune.candidates import Candidate, Entry, Setting
from ghostdeploy.deploy.tune.journal import Round
from ghostdeploy.deploy.tune.results import Tuned


def read(state: Path, near: float) -> tuple[Tuned, str, dict[str, tuple[Path, Setting]]]:
    """Returns the record, the key of the pick, and what is to be measured by key, the pick first."""
    found = msgspec.json.decode((state / "pareto.json").read_bytes(), type=Tuned)
    jobs = {}
    for row in found.rows:
        for speed in row.speeds:
            setting = Setting(speed.threads, speed.profile)
            if row.path is not None and (speed.ratio <= near or row.place == "pick"):
                jobs[Entry(Candidate(row.target, row.precision, row.without), setting).key] = (Path(row.path), setting)
    row = next(row for row in found.rows if row.place == "pick")
    pick = Entry(Candidate(row.target, row.precision, row.without), Setting(found.threads, found.profile)).key
    return found, pick, {pick: jobs[pick], **jobs}


def measure(found: Tuned, jobs: dict[str, tuple[Path, Setting]], rounds: int) -> list[Round]:
    """Returns the rounds of one sitting of all."""
    seen: list[Round] = []

    def heard(calls: dict[str, float], queued: dict[str, float]) -> bool:
        seen.append(Round(sitting=1, calls=calls, queued=queued, spent=0.0))
        return False

    take_turns(
        {
            key: Job(path=str(path), threads=setting.threads, batch=found.batch, profile=setting.profile)
            for key, (path, setting) in jobs.items()
        },
        rounds=rounds,
        queue=found.objective == "throughput",
        on_round=heard,
        on_failure=lambda key, why: click.echo(f"{key}: {why}", err=True),
        on_start=lambda key: click.echo(f"load {key}", err=True),
    )
    return seen


@click.command()
@click.argument("state", type=click.Path(path_type=Path, exists=True))
@click.option("--near", default=1.25, show_default=True, help="Measure what took at most this times the pick's time.")
@click.option("--rounds", default=30, show_default=True, help="Blocks of calls of each.")
@click.option("--json", "as_json", is_flag=True)
def main(state: Path, near: float, rounds: int, *, as_json: bool) -> None:
    """Measures the pick of a tune against its rivals again."""
    found, pick, jobs = read(state, near)
    kind: contest.Kind = "queued" if found.objective == "throughput" else "calls"
    seen = measure(found, jobs, rounds)
    ratios = {key: one for key in jobs if (one := contest.ratio(seen, key, pick, kind)) is not None}
    best = min(one.value for one in ratios.values())
    others = [one.value for key, one in ratios.items() if jobs[key][0] != jobs[pick][0]]
    verdict = {"pick": pick, "over_best": 1 / best, "holds": 1 / best <= 1 + contest.MARGIN}
    verdict |= {"best_other_bundle": min(others, default=None)}
    if as_json:
        rows = {key: [one.value, one.low, one.high] for key, one in ratios.items()}
        click.echo(json.dumps(verdict | {"time_over_pick": rows}))
        return
    table = Table("entry", "time / pick (95 %)")
    for key, one in sorted(ratios.items(), key=lambda item: item[1].value):
        table.add_row(key, f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})")
    Console().print(table)
    holds = "holds" if verdict["holds"] else "does not hold"
    print(f"the pick takes {1 / best:.3f} times what the best takes: {holds}")
    if others:
        print(f"the best of the other bundles takes {min(others):.3f} times what the pick takes")


if __name__ == "__main__":
    main()

"""Options of `eval` that evaluate in parts: on workers, in shards, from records."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.errors import UsageError
from ghostdeploy.terminal.console import Bars, GivenPath, is_verbose
from ghostdeploy.terminal.output import print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ghostdeploy.deploy.prove.evaluate import Evaluation
    from ghostdeploy.deploy.prove.sharded.spread import Plan
    from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation

_RAY = "ray"


def spread_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the callback gets `plan`, None for an evaluation at once, and `merged`."""

    @functools.wraps(command)
    def planning(
        *args: Any,
        workers: str | None,
        worker_count: int | None,
        shard: str | None,
        record: Path | None,
        state: Path | None,
        merge: bool,
        **kwargs: Any,
    ) -> Any:
        given = {
            "--workers": workers,
            "--worker-count": worker_count,
            "--shard": shard,
            "--record": record,
            "--state": state,
            "--merge": merge or None,
        }
        used = [name for name, value in given.items() if value is not None]
        if used and kwargs.get("there") is not None:
            raise UsageError(f"{used[0]} works here, not with --on", hint="run eval on the device itself")
        if merge:
            _alone(used, kwargs)
            return command(*args, plan=None, merged=True, **kwargs)
        if shard is not None:
            _require_figureless(kwargs)
        plan = _plan(workers, worker_count, shard, record, state) if used else None
        if plan is not None and plan.record is not None:
            _require_one(kwargs["bundles"])
        return command(*args, plan=plan, merged=False, **kwargs)

    for option in reversed(_OPTIONS):
        planning = option(planning)
    return planning


_OPTIONS = (
    click.option(
        "--workers", metavar="ray[:HOST:PORT]", help="Evaluate by worker processes on Ray, here or on a cluster."
    ),
    click.option(
        "--worker-count",
        type=click.IntRange(1, 4096),
        metavar="N",
        help="With --workers: processes; else one per core.",
    ),
    click.option("--shard", metavar="I/N", help="With --record: evaluate one of N shards of the images."),
    click.option("--record", type=GivenPath(), metavar="FILE.jsonl", help="Write what each image gave, for --merge."),
    click.option(
        "--state",
        type=GivenPath(),
        metavar="DIR",
        help="Keep finished parts here: a killed run goes on from them.",
    ),
    click.option("--merge", is_flag=True, help="Put records together: the arguments are files of --record."),
)


def shard_of(bundle: Path, plan: Plan, *, as_json: bool, **options: Any) -> int:
    """Records a shard; returns the exit code."""
    from ghostdeploy.deploy.prove.commands import set_of
    from ghostdeploy.deploy.prove.sharded.shards import record_shard
    from ghostdeploy.terminal.layout import table

    if options.pop("max_drop") is not None:
        raise UsageError("--max-drop judges the whole set, not a shard", hint="give it to --merge")
    data = set_of([bundle], options.pop("data"))
    with Bars() as bars:
        found = record_shard(bundle, data=data, plan=plan, listener=bars, **options)
    if as_json:
        print_json(found)
    else:
        table(("bundle", "shard", ">images", "record"), [(found.bundle, found.shard, str(found.images), found.record)])
    return 0


def merged_from(files: Sequence[Path], options: dict[str, Any]) -> Evaluation | TaskEvaluation:
    """Returns the figures of records."""
    from ghostdeploy.deploy.prove.sharded.shards import merge

    return merge(files, data=options["data"], max_drop=options["max_drop"])


def _plan(workers: str | None, count: int | None, shard: str | None, record: Path | None, state: Path | None) -> Plan:
    from ghostdeploy.deploy.prove.sharded.pieces import parse_shard
    from ghostdeploy.deploy.prove.sharded.ray_cluster import Ray
    from ghostdeploy.deploy.prove.sharded.spread import Plan

    if count is not None and workers is None:
        raise UsageError("--worker-count needs --workers", hint="add --workers ray")
    ray = None if workers is None else Ray(_address(workers), count, is_verbose())
    return Plan(ray=ray, shard=None if shard is None else parse_shard(shard), record=record, state=state)


def _address(workers: str) -> str | None:
    """Returns the address of a cluster in `ray[:ADDRESS]`; None for this machine."""
    kind, colon, address = workers.partition(":")
    if kind != _RAY or (colon and not address):
        raise UsageError(f"workers {workers!r} are none, expected ray or ray:HOST:PORT", hint="--workers ray")
    if not colon or address == "auto":
        return address or None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        hint = f"--workers ray --worker-count {address}" if address.isdecimal() else "--workers ray:HOST:6379"
        raise UsageError(f"{address!r} is no address of a Ray cluster, expected HOST:PORT", hint=hint)
    return address


def _alone(used: Sequence[str], kwargs: dict[str, Any]) -> None:
    """Refuses what has no effect on records."""
    others = [name for name in used if name != "--merge"]
    others += [f"--{name}" for name in ("reference", "receipt") if kwargs.get(name) is not None]
    if others:
        raise UsageError(f"--merge reads records, and {others[0]} has no effect on them", hint=f"leave out {others[0]}")


def _require_figureless(kwargs: dict[str, Any]) -> None:
    """Refuses what would be written of figures, which a shard has not."""
    if wanted := [name for name in ("junit", "receipt") if kwargs.get(name) is not None]:
        raise UsageError(f"a shard has no figures for --{wanted[0]}", hint=f"leave out --{wanted[0]}")


def _require_one(bundles: Sequence[Path]) -> None:
    if len(bundles) > 1:
        raise UsageError(f"--record takes one bundle, got {len(bundles)}", hint="record each by itself")

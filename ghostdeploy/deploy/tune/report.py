"""The results of a run: the winning bundle beside the state folder, `pareto.json` and `pareto.md` inside it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.bundle import staging
from ghostdeploy.bundle.folder import MANIFEST
from ghostdeploy.bundle.workspaces import sweep
from ghostdeploy.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ghostdeploy.deploy.tune.candidates import Candidate
    from ghostdeploy.deploy.tune.results import Row, Tuned

TITLES = ("bundle", "threads", ">latency", ">images/s", ">time / pick (95 %)", ">size", ">drop", ">agreement", "place")
NOTHING = "–"


def refuse_foreign(out: Path, name: str, candidates: Iterable[Candidate], state: Path, *, replace: bool) -> None:
    """Checks, before any work, that candidates and winner may be written.

    Args:
        out: Parent folder.
        name: Of the model.
        candidates: Each may win.
        state: The state folder.
        replace: Whatever bundle has the winner's name may be replaced.

    Raises:
        OutputError: A file is in the way.
        UsageError: A name or path is too long, or something of the winner's name exists that is not from this state
            folder, or no bundle.
    """
    for one in candidates:
        final = out / f"{name}-{one.target}-{one.precision}"
        staging.require_place(final)
        staging.require_place(state / one.folder / final.name)
        if not _is_ours(final, state):
            staging.refuse_existing(final, force=replace)


def publish(bundle: Path, out: Path, state: Path, *, replace: bool) -> None:
    """Copies the winning bundle to `out`, whole or not at all; one that is there already stays.

    Args:
        bundle: In the state folder.
        out: Parent folder.
        state: The state folder; a copy of another of its bundles is replaced.
        replace: Replace whatever bundle is there.

    Raises:
        UsageError: Another bundle of that name exists.
        OutputError: The copy cannot be written.
    """
    final = out / bundle.name
    sweep(out)  # what a killed run left right behind its copy: nothing else may be written here again
    if final.exists() and _manifest(final) == _manifest(bundle):
        return
    with staging.staging(out, bundle.name, force=replace or _is_ours(final, state)) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)


def write_tables(found: Tuned, state: Path) -> None:
    """Writes `pareto.json` and `pareto.md`, each whole or not at all.

    Raises:
        OutputError: They cannot be written.
    """
    document = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    for name, data in (("pareto.json", document), ("pareto.md", markdown(found).encode())):
        write_whole(state / name, data, what="the table")


def markdown(found: Tuned) -> str:
    """Returns the Pareto table and what it rests on as Markdown."""
    columns, rows = cells(found)
    titles = [title.lstrip(">") for title in columns]
    rule = ["---:" if title.startswith(">") else "---" for title in columns]
    lines = [titles, rule, *rows]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    said = "\n".join(f"- {line}" for line in (*remarks(found), f"`{load_line(found)}`"))
    return f"# {found.model}\n\n{table}\n\n{said}\n"


def cells(found: Tuned) -> tuple[list[str], list[list[str]]]:
    """Returns titles (`>` before right-aligned ones) and lines of the Pareto table, without empty columns."""
    lines = [_cells(row) for row in found.rows]
    shown = [index for index in range(len(TITLES)) if any(line[index] != NOTHING for line in lines)]
    return [TITLES[index] for index in shown], [[line[index] for index in shown] for line in lines]


def remarks(found: Tuned) -> list[str]:
    """Returns the notes below the table, one sentence each."""
    ends = "; ".join(f"{one.entry} {_ratio(one.ratio, one.ratio_ci95)}" for one in found.final)
    doubt = 1 - min(one.ratio_ci95[0] for one in found.final)
    close = f"another may be up to {doubt:.0%} faster: they are too close, or the machine is too noisy"
    sure = "no other can be more than 3 % faster" if found.decided else close
    limits = [f"top-1 drop ≤ {found.max_drop:g}"]
    limits += [] if found.max_size is None else [f"size ≤ {found.max_size / 1e6:.2f} MB"]
    limits += [] if found.max_latency_ms is None else [f"latency ≤ {found.max_latency_ms:g} ms"]
    lines = [
        f"{found.machine}; {found.seconds:.0f} s; {', '.join((found.objective, *limits))}; batch {found.batch}",
        f"last run, time relative to the pick: {ends}; {sure}",
    ]
    lines += [
        f"{one.entry} was faster in the last run, but not by more than 3 % in every run: the pick uses fewer threads"
        for one in found.final[:1]
        if one.ratio < 1
    ]
    lines += [f"{row.name}: {row.why}" for row in found.rows if row.why is not None]
    return lines + [f"{target} left out: it {why}" for target, why in found.left_out.items()]


def load_line(found: Tuned) -> str:
    """Returns the Python call that runs the pick as it was measured."""
    profile = "" if found.profile == "latency" else f', profile="{found.profile}"'
    return f'ghostdeploy.load("{found.bundle}", threads={found.threads}{profile})'


def _cells(row: Row) -> tuple[str, ...]:
    best = row.speeds[0] if row.speeds else None
    queued = None if best is None else best.images_per_second
    return (
        row.name,
        NOTHING if best is None else f"{best.threads}" + ("" if best.profile == "latency" else f", {best.profile}"),
        NOTHING if best is None else f"{best.latency_ms:.3f} ms",
        NOTHING if queued is None else f"{queued:.0f}",
        NOTHING if best is None else _ratio(best.ratio, best.ratio_ci95),
        NOTHING if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f} MB",
        NOTHING if row.drop is None else f"{100 * row.drop:+.2f} points",
        NOTHING if row.agreement is None else f"{row.agreement:.2%}",
        row.place,
    )


def _ratio(value: float, interval: Sequence[float]) -> str:
    low, high = interval
    return "1" if low == high == 1 else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _manifest(bundle: Path) -> bytes | None:
    try:
        return (bundle / MANIFEST).read_bytes()
    except OSError:
        return None


def _is_ours(final: Path, state: Path) -> bool:
    """Returns whether a bundle is a copy of one of the state folder."""
    data = _manifest(final)
    return data is not None and any(_manifest(one) == data for one in state.glob(f"*/{final.name}"))

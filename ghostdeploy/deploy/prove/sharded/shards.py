"""One shard of an evaluation, recorded; and records of shards put together.

A shard alone has no figures: an accuracy of a part would be taken for one of the whole. Files are put together only if
they are of one bundle, one reference and one set, and have every image once; then the figures are those of one run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove import classified, measuring, task_evaluation
from ghostdeploy.deploy.prove.class_order import fit_classes
from ghostdeploy.deploy.prove.images import ImageSet, open_images
from ghostdeploy.deploy.prove.sharded import record
from ghostdeploy.deploy.prove.sharded.fingerprint import fingerprint
from ghostdeploy.deploy.prove.sharded.job import measure_of
from ghostdeploy.deploy.prove.sharded.pieces import parse_shard, pieces_of, spans
from ghostdeploy.deploy.prove.sharded.spread import Spread
from ghostdeploy.deploy.prove.streaming import load_busy
from ghostdeploy.errors import DataError, UsageError
from ghostdeploy.progress import Listener, Stages
from ghostdeploy.tasks import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.deploy.prove.evaluate import Evaluation
    from ghostdeploy.deploy.prove.sharded.job import Subject
    from ghostdeploy.deploy.prove.sharded.record import Recorded
    from ghostdeploy.deploy.prove.sharded.spread import Gathered, Plan
    from ghostdeploy.deploy.prove.streaming import Opens
    from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation
    from ghostdeploy.tasks.measure import Labelled


class Written(Record, frozen=True, kw_only=True):
    """A shard that was recorded."""

    bundle: str
    shard: str
    images: int
    record: str
    """The file."""
    devices: tuple[str, ...]


def record_shard(
    path: Path,
    *,
    data: Path,
    plan: Plan,
    reference: Path | None = None,
    listener: Listener | None = None,
    opened: Opens = load_busy,
) -> Written:
    """Evaluates a shard of a set and writes its record.

    Args:
        path: A bundle.
        data: A labelled set, see `commands.evaluate`.
        plan: With the shard and the record.
        reference: A bundle that the whole is to be compared with.
        listener: Receives the progress.
        opened: Loads a bundle.

    Raises:
        GhostDeployError: As for `commands.evaluate`; or there are more shards than pieces of the set.
    """
    assert plan.shard is not None  # the caller asked for it
    assert plan.record is not None  # the plan requires it
    task = open_bundle(path, check_hashes=False).manifest.task.name
    given = _read(task, data)
    with Spread(plan, Stages(listener), opened) as spread:
        base = None if reference is None else _gather(spread, reference, given)[0]
        found, fitted = _gather(spread, path, given)
        spread.write_record(found, base, fitted)
        spread.finish()
    return Written(
        bundle=str(path),
        shard=str(plan.shard),
        images=len(found.partials),
        record=str(plan.record),
        devices=found.devices,
    )


def merge(
    paths: Sequence[Path], *, data: Path | None = None, max_drop: float | None = None
) -> Evaluation | TaskEvaluation:
    """Puts records together.

    Args:
        paths: The files, in any order.
        data: The labelled set; None is where the records have it from.
        max_drop: Largest allowed drop to the reference; see `commands.evaluate`.

    Raises:
        DataError: A file is damaged or cut; they are of different bundles, references or sets; an image is there twice
            or not at all; or the set is another one than theirs.
        UsageError: A limit was given, and the records have no reference.
    """
    found = [record.read(path) for path in paths]
    first = found[0].header
    for one in found[1:]:
        _require_same(found[0], one)
    lines = _lines(found)
    if max_drop is not None and first.reference is None:
        raise UsageError(f"max drop {max_drop:g} needs a reference, and {paths[0]} has none", hint="leave it out")
    given = _read(first.subject.task.name, Path(first.data.source) if data is None else data)
    got = {index: line.got for index, line in lines.items()}
    other = {index: line.reference for index, line in lines.items()}
    bundle, reference = first.subject.bundle, "" if first.reference is None else first.reference.bundle
    if isinstance(given, ImageSet):
        _require_set(fit_classes(given, first.subject.labels), first)
        ours = _predicted(given, first.subject, got)
        base = None if first.reference is None else _predicted(given, first.reference, other)
        return classified.figures(ours, base, bundle, reference, max_drop)
    _require_set(given, first)
    measure = measure_of(first.subject, given, got)
    against = None if first.reference is None else measure_of(first.reference, given, other)
    return task_evaluation.figures(measure, against, bundle, reference, max_drop)


def _predicted(images: ImageSet, subject: Subject, partials: dict[int, Any]) -> classified.Predicted:
    return classified.of_partials(images, subject.labels, subject.preprocess, partials)


def _read(task: str, data: Path) -> ImageSet | Labelled:
    """Opens the set of a task."""
    return open_images(data, labelled=True) if table.recorded(task).measure is None else measuring.read(task, data)


def _gather(spread: Spread, path: Path, given: ImageSet | Labelled) -> tuple[Gathered, ImageSet | Labelled]:
    """Evaluates a shard; returns the set with the bundle's classes besides."""
    if isinstance(given, ImageSet):
        fitted = fit_classes(given, open_bundle(path, check_hashes=False).labels())
        return spread.gather(path, fitted, None), fitted
    return spread.gather(path, measuring.images_of(given), given), given


def _require_same(one: Recorded, other: Recorded) -> None:
    """Refuses records of different evaluations."""
    a, b = one.header, other.header
    for what, mine, theirs in (
        ("bundles", a.subject.digest, b.subject.digest),
        ("references", _digest(a.reference), _digest(b.reference)),
        ("sets", a.data.fingerprint, b.data.fingerprint),
    ):
        if mine != theirs:
            raise DataError(
                f"{one.path} and {other.path} are of different {what}: {_short(mine)} and {_short(theirs)}",
                hint="merge records of one evaluation only",
            )


def _digest(subject: Subject | None) -> str | None:
    return None if subject is None else subject.digest


def _short(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}…"


def _lines(found: Sequence[Recorded]) -> dict[int, record.Line]:
    """Returns the line of each image of the set."""
    lines: dict[int, record.Line] = {}
    owner: dict[int, Path] = {}
    count = found[0].header.data.count
    for one in found:
        for line in one.lines:
            if not 0 <= line.image < count:
                raise DataError(f"{one.path} has image {line.image}, expected 0 to {count - 1}")
            if line.image in lines:
                raise DataError(
                    f"image {line.image} is in {owner[line.image]} and in {one.path}",
                    hint="merge records of different shards",
                )
            lines[line.image], owner[line.image] = line, one.path
    if absent := [image for image in range(count) if image not in lines]:
        raise DataError(
            f"{len(absent)} of {count} images are missing: {_missing(absent, found)}", hint="add their records"
        )
    return dict(sorted(lines.items()))


def _missing(absent: list[int], found: Sequence[Recorded]) -> str:
    """Returns which shards are missing, where that is what is, else which images."""
    known = {one.header.shard for one in found}
    every = {parse_shard(shard) for shard in known if shard is not None}
    if None not in known and len({shard.of for shard in every}) == 1:
        of = next(iter(every)).of
        rest = [number for number in range(1, of + 1) if f"{number}/{of}" not in known]
        if len(rest) and sum(len(piece) for number in rest for piece in _pieces(found, number, of)) == len(absent):
            return f"{'shard' if len(rest) == 1 else 'shards'} {', '.join(f'{number}/{of}' for number in rest)}"
    return f"images {spans(absent)}"


def _pieces(found: Sequence[Recorded], number: int, of: int) -> list[range]:
    return pieces_of(found[0].header.data.count, parse_shard(f"{number}/{of}"))


def _require_set(data: ImageSet | Labelled, header: record.Header) -> None:
    """Refuses another set than that of the records."""
    if fingerprint(data) != header.data.fingerprint:
        raise DataError(
            f"{data.source} is another set than that of the records, {header.data.source}: images or labels differ",
            hint="give the set that was evaluated with --data",
        )

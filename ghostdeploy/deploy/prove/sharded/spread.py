"""One evaluation in pieces: what is done is read, the rest is run here or by workers, and all is kept and recorded.

pieces of the set, or of a shard → those on disk → the rest, here or on Ray → what each image gave
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.sharded import record
from ghostdeploy.deploy.prove.sharded.fingerprint import fingerprint
from ghostdeploy.deploy.prove.sharded.finished import Finished, Piece
from ghostdeploy.deploy.prove.sharded.job import Evaluator, Job, subject_of
from ghostdeploy.deploy.prove.sharded.pieces import PIECES, pieces_of
from ghostdeploy.errors import UsageError
from ghostdeploy.machine import cpu_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.prove.sharded.job import Subject
    from ghostdeploy.deploy.prove.sharded.pieces import Shard
    from ghostdeploy.deploy.prove.sharded.ray_cluster import Ray
    from ghostdeploy.deploy.prove.sharded.ray_workers import RayWorkers
    from ghostdeploy.deploy.prove.streaming import Opens
    from ghostdeploy.progress import Stages
    from ghostdeploy.tasks.measure import Labelled

_AROUND = ".parts"
"""Ending of the folder beside a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an evaluation is spread."""

    ray: Ray | None = None
    """Workers; None evaluates in this process."""
    shard: Shard | None = None
    """Evaluate this part of the set alone."""
    record: Path | None = None
    """Write what each image gave."""
    state: Path | None = None
    """Keep what is done here; None is beside the record, if there is one."""

    def __post_init__(self) -> None:
        """Refuses a shard that would come to nothing.

        Raises:
            UsageError: It has no record.
        """
        if self.shard is not None and self.record is None:
            raise UsageError(f"shard {self.shard} has no figures of its own", hint="add --record FILE, and merge")

    @property
    def folder(self) -> Path | None:
        """Where pieces are kept; None keeps none."""
        if self.state is not None or self.record is None:
            return self.state
        return self.record.with_name(self.record.name + _AROUND)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the images of a set, or of a shard, gave."""

    subject: Subject
    partials: dict[int, Any]
    devices: tuple[str, ...]


@dataclass
class Spread:
    """Evaluates bundles by a plan; a context, which holds the workers.

    Args:
        plan: How.
        stages: Receives the progress.
        opened: Loads a bundle on this machine.
    """

    plan: Plan
    stages: Stages
    opened: Opens
    gathered: list[Gathered] = field(default_factory=list)
    """Of each bundle, in the order in which they were evaluated."""
    _workers: RayWorkers | None = None
    _prints: dict[int, str] = field(default_factory=dict)
    _states: list[Finished] = field(default_factory=list)
    _left: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def gather(self, path: Path, images: ImageSet, data: Labelled | None) -> Gathered:
        """Evaluates a bundle.

        Args:
            path: The bundle.
            images: The images, with the bundle's classes.
            data: The set of a task with a measure of its own; None for a classifier.

        Raises:
            GhostDeployError: As the evaluation in one process.
        """
        pieces = pieces_of(len(images), self.plan.shard)
        with self.opened(path) as runtime:  # what is wrong with it is told before anything starts
            subject, info = subject_of(path, open_bundle(path, check_hashes=False), runtime), runtime.info()
        device = f"{cpu_name()}, {info['engine']} {info['engine_version']}"
        found: dict[range, Piece] = {}
        with self.stages.stage(f"evaluate {subject.name}"):
            state = self._state(subject, images, data, device)
            found.update({} if state is None else state.read(pieces))
            total, done = sum(map(len, pieces)), sum(map(len, found))
            self.stages.advance(done, total)
            rest = [piece for piece in pieces if piece not in found]
            for piece, one in self._run(Job(path.absolute(), subject, images, data), rest, done, total):
                if state is not None:
                    state.keep(piece, one)
                found[piece] = one
                done += len(piece)
                self.stages.advance(done, total)
        partials = {image: one for piece in pieces for image, one in zip(piece, found[piece].partials, strict=True)}
        devices = tuple(dict.fromkeys(found[piece].device for piece in pieces))
        self.gathered.append(Gathered(subject, partials, devices))
        return self.gathered[-1]

    def write_record(self, found: Gathered, reference: Gathered | None, data: ImageSet | Labelled) -> None:
        """Writes the record, where one is wanted.

        Raises:
            OutputError: It cannot be written.
        """
        if self.plan.record is None:
            return
        other = {} if reference is None else reference.partials
        lines = [record.Line(image, one, other.get(image)) for image, one in sorted(found.partials.items())]
        header = record.Header(
            ghostdeploy=version("ghostdeploy"),
            subject=found.subject,
            reference=None if reference is None else reference.subject,
            devices=found.devices,
            data=record.Data(source=data.source, fingerprint=self._fingerprint(data), count=len(data.images)),
            shard=None if self.plan.shard is None else str(self.plan.shard),
        )
        record.write(self.plan.record, header, lines)

    def finish(self) -> None:
        """Removes the pieces on disk: the evaluation is whole."""
        for state in self._states:
            state.clear()

    def _run(self, job: Job, pieces: Sequence[range], done: int, total: int) -> Iterator[tuple[range, Piece]]:
        """Yields pieces as they are done."""
        if not pieces:
            return
        if self.plan.ray is not None:
            yield from self._ray(self.plan.ray).run(job, pieces)
            return
        with closing(Evaluator(job, self.opened)) as evaluator:
            for piece in pieces:
                partials = evaluator.partials(piece, partial(self._advance, done, total))
                done += len(piece)
                yield piece, Piece(evaluator.device, partials)

    def _advance(self, before: int, total: int, count: int) -> None:
        self.stages.advance(before + count, total)

    def _ray(self, wanted: Ray) -> RayWorkers:
        if self._workers is None:
            from ghostdeploy.deploy.prove.sharded.ray_workers import RayWorkers

            self._workers = self._left.enter_context(RayWorkers(wanted))
        return self._workers

    def _state(self, subject: Subject, images: ImageSet, data: Labelled | None, device: str) -> Finished | None:
        """Returns where pieces of this bundle on this set are kept."""
        if (folder := self.plan.folder) is None:
            return None
        where = "" if self.plan.ray is None or self.plan.ray.address is None else self.plan.ray.address
        known = self._fingerprint(images if data is None else data)
        parts = (subject.digest, known, f"{len(images)}/{PIECES}", device, where, version("ghostdeploy"))
        self._states.append(Finished(folder, parts))
        return self._states[-1]

    def _fingerprint(self, data: ImageSet | Labelled) -> str:
        """Returns the fingerprint of a set, computed once."""
        if id(data) not in self._prints:
            self._prints[id(data)] = fingerprint(data)
            self._left.callback(lambda kept: None, data)  # as long as its number is known
        return self._prints[id(data)]

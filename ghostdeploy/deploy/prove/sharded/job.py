"""What a worker gets, and what it gives for a piece of the set: for each image plain data.

A classifier gives the five best classes of an image, any other task what its measure keeps of it.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove import measuring
from ghostdeploy.deploy.prove.evaluate import best_five
from ghostdeploy.deploy.prove.streaming import batch_size, batches, outputs
from ghostdeploy.errors import BundleError
from ghostdeploy.machine import cpu_name, usable_cores
from ghostdeploy.preprocess import Preprocess  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.tasks.base import TaskInfo  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.prove.streaming import Opens
    from ghostdeploy.runtimes import Runtime
    from ghostdeploy.tasks.measure import Labelled, Measure


class Subject(Record, frozen=True, kw_only=True):
    """The bundle that was run, with all that its figures need."""

    bundle: str
    """As given."""
    name: str
    digest: str
    """Of its manifest."""
    task: TaskInfo
    preprocess: Preprocess
    labels: tuple[str, ...]
    """Names of the classes, in their order."""


@dataclass(frozen=True, slots=True)
class Job:
    """One bundle on one set; travels to workers of this machine, or of the same cluster."""

    path: Path
    """Of the bundle."""
    subject: Subject
    images: ImageSet
    """With the bundle's classes, where it is a classifier."""
    data: Labelled | None
    """The labelled set of any other task."""


def subject_of(path: Path, bundle: Bundle, runtime: Runtime) -> Subject:
    """Returns what records tell of a bundle."""
    manifest = bundle.manifest
    return Subject(
        bundle=str(path),
        name=manifest.name,
        digest=digest_of(bundle),
        task=manifest.task,
        preprocess=manifest.preprocess,
        labels=tuple(runtime.labels),
    )


def digest_of(bundle: Bundle) -> str:
    """Returns the digest of a bundle.

    Raises:
        BundleError: It is of an early version, which has none.
    """
    if bundle.manifest.digest is None:
        raise BundleError(
            f"{bundle.path} has no digest, so its parts cannot be told from those of another bundle",
            hint="export it again",
        )
    return bundle.manifest.digest


class Evaluator:
    """A loaded bundle that evaluates pieces; close it.

    Args:
        job: What to evaluate.
        opened: Loads the bundle.
        threads: That decode; None is one per usable core.

    Raises:
        BundleError: The bundle is damaged, or another one than the job's.
    """

    def __init__(self, job: Job, opened: Opens, *, threads: int | None = None) -> None:
        self._job = job
        self._threads = threads or usable_cores()
        bundle = open_bundle(job.path, check_hashes=False)
        if (found := digest_of(bundle)) != job.subject.digest:
            raise BundleError(
                f"{job.path} has digest {found[:12]}…, expected {job.subject.digest[:12]}…",
                hint="was it exported again meanwhile? start the evaluation again",
            )
        self._runtime = opened(job.path)
        info = self._runtime.info()
        self.device = f"{cpu_name()}, {info['engine']} {info['engine_version']}"
        """Processor and engine."""

    def close(self) -> None:
        """Releases the engine."""
        self._runtime.close()

    def partials(self, piece: range, advance: Callable[[int], None] = lambda done: None) -> list[Any]:
        """Returns what each image of a piece gave.

        Args:
            piece: Images of the set.
            advance: Called with the number of images that are done.

        Raises:
            DataError: An image cannot be decoded, or the set does not fit the bundle.
        """
        job = self._job
        images, size = job.images.part(piece.start, piece.stop), batch_size(len(job.images))
        spec = job.subject.preprocess
        with closing(batches(images, spec, threads=self._threads, size=size)) as given:
            if job.data is None:
                found: list[Any] = []
                for logits in outputs(given, self._runtime.submit):
                    found += best_five(logits).tolist()
                    advance(len(found))
                return found
            (port,) = self._runtime.info()["inputs"]
            measure = measuring.empty(self._runtime.task, job.data, job.subject.labels)
            index = piece.start
            for batch in given:
                measuring.add(measure, index, self._runtime.infer({port["name"]: batch}), spec, job.subject.labels)
                index += len(batch)
                advance(index - piece.start)
            return [measure.partial(image) for image in piece]


def measure_of(subject: Subject, data: Labelled, partials: dict[int, Any]) -> Measure:
    """Returns the measure that what the images gave adds up to.

    Raises:
        DataError: The set does not fit the bundle, or what an image gave is damaged.
    """
    from ghostdeploy.tasks.table import task_of

    found = measuring.empty(task_of(subject.task, subject.preprocess.sides), data, subject.labels)
    found.absorb(partials)
    return found

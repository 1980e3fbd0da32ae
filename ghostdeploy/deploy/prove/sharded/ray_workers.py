"""Workers on Ray: pieces are rows of a Ray Data set, and a pool of actors with one loaded bundle each maps them.

    Ray Data rows (first, last) → actor pool: Evaluator → rows (first, last, JSON) → this process

An actor that dies is started again by Ray, and its piece is done again by it or by another one. Workers of a cluster
must see bundle and images at the paths of this machine. Ray's processes trust each other: whoever reaches a cluster's
ports can run code on it.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy import errors
from ghostdeploy.deploy.prove.sharded.finished import Piece
from ghostdeploy.deploy.prove.sharded.job import Evaluator
from ghostdeploy.deploy.prove.sharded.ray_cluster import connect, environment, first_line, import_ray, share, start
from ghostdeploy.machine import usable_cores
from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ghostdeploy.deploy.prove.sharded.job import Job
    from ghostdeploy.deploy.prove.sharded.ray_cluster import Ray

_log = logging.getLogger("ghostdeploy")

ATTEMPTS = 4
"""Times that a piece is begun: Ray starts an actor that died again without end, and an image may kill every engine."""


class RayWorkers:
    """A connection to Ray; a context.

    Args:
        wanted: What to run on.

    Raises:
        MissingDependency: Ray is not installed.
        UnsupportedHardware: No cluster answers at the address, or Ray cannot be started.
        UsageError: There are more workers than processors of the cluster.
    """

    def __init__(self, wanted: Ray) -> None:
        self._wanted = wanted
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> RayWorkers:
        """Starts Ray, or connects to it."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(environment(self._wanted))
            import_ray(self._wanted)
            if self._wanted.address is None:
                self.workers = self._wanted.workers or usable_cores()
                self.threads = max(1, usable_cores() // self.workers)
                start(self.workers * self.threads, self._wanted, undo)
            else:
                connect(self._wanted.address, self._wanted, undo)
                self.workers, self.threads = share(self._wanted)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what was started."""
        self._undo.close()

    def run(self, job: Job, pieces: Sequence[range]) -> Iterator[tuple[range, Piece]]:
        """Yields pieces as they are done, in any order.

        Raises:
            GhostDeployError: As the evaluation in one process.
            ExportFailed: Workers died again and again.
        """
        import ray

        rows = [{"start": piece.start, "stop": piece.stop} for piece in pieces]
        given = ray.put(job)  # kept here as long as an actor may be started again
        begun = ray.remote(num_cpus=0)(Begun).remote()
        mapped = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Worker,
            fn_constructor_args=(given, begun, self.threads),
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(rows))),
            num_cpus=self.threads,
        )
        try:
            for row in mapped.iter_rows():
                yield range(row["start"], row["stop"]), _answer(row["answer"])
            if again := ray.get(begun.again.remote()):
                _log.warning("workers died: %d of %d pieces of the images were evaluated again", again, len(rows))
        except ray.exceptions.RayError as error:
            raise errors.ExportFailed(
                f"workers of {job.path} died: {first_line(error)}",
                hint="evaluate in this process, without --workers, which shows what fails",
            ) from error


class Begun:
    """An actor that counts how often each piece was begun."""

    def __init__(self) -> None:
        self._times: dict[int, int] = {}

    def begin(self, start: int) -> int:
        """Returns how often a piece was begun, this time included."""
        self._times[start] = self._times.get(start, 0) + 1
        return self._times[start]

    def again(self) -> int:
        """Returns how many pieces were begun more than once."""
        return sum(times > 1 for times in self._times.values())


class Worker:
    """An actor: one loaded bundle. Errors of ours are answers, so that Ray neither retries nor words them.

    Args:
        given: The job, by reference.
        begun: Counts what is begun.
        threads: Of the engine, and of decoding.
    """

    def __init__(self, given: Any, begun: Any, threads: int) -> None:
        import ray

        self._begun = begun
        self._error: errors.GhostDeployError | None = None
        try:
            job = ray.get(given)
            self._evaluator = Evaluator(
                job, lambda path: load(path, profile="throughput", threads=threads), threads=threads
            )
        except errors.GhostDeployError as error:
            self._error = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Evaluates the piece of a row."""
        import ray

        try:
            if self._error is not None:
                raise self._error
            if ray.get(self._begun.begin.remote(int(row["start"]))) > ATTEMPTS:
                raise errors.ExportFailed(
                    f"{ATTEMPTS} workers died of images {row['start']} to {row['stop'] - 1}",
                    hint="evaluate in this process, without --workers, which shows what fails",
                )
            partials = self._evaluator.partials(range(int(row["start"]), int(row["stop"])))
            answer: Any = Piece(self._evaluator.device, partials)
        except errors.GhostDeployError as error:
            answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        return {"start": row["start"], "stop": row["stop"], "answer": msgspec.json.encode(answer)}


def _answer(data: bytes) -> Piece:
    """Returns what a worker found, or raises what it raised."""
    document = msgspec.json.decode(data)
    if "error" in document:
        kind = getattr(errors, document["error"], errors.BadInput)
        raise kind(document["message"], hint=document["hint"])
    return msgspec.convert(document, Piece)

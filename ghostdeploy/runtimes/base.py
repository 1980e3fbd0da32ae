"""What a runtime is: NumPy in, NumPy out, keyed by tensor name.

The base class handles the hard parts: life cycle, input checks, the batch rule, threads, futures. A backend opens an
engine, runs exact batches on it, closes it, and describes what it opened:

    _open()               → Engine       load the payload, describe what was loaded
    _run(inputs)          → [output, …]  arrays of exactly the payload's batch; called from many threads at once
    _close()                             free what `_open` took
    _start(inputs, done)                 only where the engine has its own queue: as `_run`, in the background
    _kernels()            → {name: n}    only where the engine tells what it runs

A runtime belongs to the process that loaded it: engines keep threads that a `fork` does not copy. A forked child that
calls its parent's runtime gets a `UsageError`; it must load its own, or be started with the `spawn` method. Closing or
dropping the parent's runtime in the child does nothing.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from ghostdeploy.arguments import require_count
from ghostdeploy.errors import BundleError, GhostDeployError, UnsupportedHardware, UsageError
from ghostdeploy.runtimes.answers import Answers
from ghostdeploy.runtimes.gate import Gate, watch
from ghostdeploy.runtimes.interface import Engine, Interface, Settings, describe, require_match
from ghostdeploy.runtimes.placement import RuntimePlacement
from ghostdeploy.runtimes.pool import Pool
from ghostdeploy.runtimes.ports import InputPort, check_all, chunks, first_output
from ghostdeploy.runtimes.submissions import Submissions, Work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.runtimes.submissions import Done


_NO_MEMORY = re.compile(
    r"bad_alloc|out of memory|(failed to|cannot) allocate|resource temporarily unavailable", re.IGNORECASE
)
"""Out-of-memory messages of C++, CUDA, ONNX Runtime and the C library, the last one about threads."""


class Runtime(Answers, ABC):
    """A loaded model. One object may be called from many threads at once.

    Args:
        interface: The payload's inputs and outputs.
        settings: How to run it.

    Raises:
        BundleError: The engine refuses the payload, or the payload's inputs and outputs differ from the manifest.
        UnsupportedHardware: The device is not there.
    """

    engine: ClassVar[str]
    """Name of the engine, as in a manifest's `runtimes`."""

    def __init__(self, interface: Interface, settings: Settings) -> None:
        self._interface = interface
        self._settings = settings
        self._ports = {spec.name: InputPort(spec) for spec in interface.inputs}
        self._port = next(iter(self._ports.values()))
        self._output_names = [spec.name for spec in interface.outputs]
        self._gate = Gate(interface.where)
        self._opened = self._open_checked()
        streams = self._opened.streams
        # A batch waits for its pieces: in one pool the waiting ones could take all threads.
        self._workers = Pool("ghostdeploy-submit", streams)
        self._pieces = Pool("ghostdeploy-pieces", streams)
        self._submissions = Submissions(self._where, capacity=settings.queue or 4 * streams, window=2 * streams)
        watch(self)

    @abstractmethod
    def _open(self) -> Engine:
        """Loads the payload; any exception of the engine becomes a `BundleError` with its reason."""

    @abstractmethod
    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        """Runs one batch of exactly the payload's size.

        Args:
            inputs: Checked, C-contiguous arrays, in the payload's order.

        Returns:
            The outputs in the payload's order, in memory that no later call writes to.
        """

    @abstractmethod
    def _close(self) -> None:
        """Frees the engine; no call is under way."""

    def _start(self, inputs: Arrays, done: Done) -> None:
        """Runs one batch of exactly the payload's size in the background: on a worker thread, or by the engine.

        Args:
            inputs: As for `_run`; nobody else writes to them.
            done: To be called once, with the outputs or the error, from any thread. An exception of `_start` itself
                counts as the error.
        """
        self._workers.tell(done, self._run, inputs)

    def _kernels(self) -> dict[str, int] | None:
        """Returns the nodes that the engine runs, by kernel; None where it tells none. Called while it is open."""
        return None

    def __call__(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Runs a model with one input and returns its first output.

        Args:
            batch: (N, …), any N ≥ 1; dtype and further shape as in `info()["inputs"]`.

        Raises:
            InputError: Wrong type, dtype or shape, NaN or infinite values.
            UsageError: The model has several inputs, or this runtime was closed.
        """
        self._gate.enter()
        try:
            return self._call(batch)
        finally:
            self._gate.leave()

    def infer(self, inputs: Arrays) -> Arrays:
        """Runs the model.

        Args:
            inputs: One array per input, all with the same batch size.

        Returns:
            One array per output, by name; they belong to the caller.

        Raises:
            InputError: Wrong names, type, dtype or shape, NaN or infinite values.
            UsageError: This runtime was closed.
        """
        self._gate.enter()
        try:
            outputs = self._compute(check_all(inputs, self._ports, where=self._where))
        finally:
            self._gate.leave()
        return dict(zip(self._output_names, outputs, strict=True))

    def submit(self, batch: NDArray[Any] | Arrays, *, timeout: float | None = None) -> Future[NDArray[Any]]:
        """Starts `__call__` in the background; waits while `queue` submissions are without result.

        The batch is copied, so its memory may be reused at once. Errors of the input come out of `Future.result`.
        Callbacks of the future run on their own thread.

        Args:
            batch: As for `__call__`; or one array per input, as for `infer`.
            timeout: Seconds to wait for room; 0 does not wait, None waits as long as it takes.

        Raises:
            QueueFull: There was no room in time.
            UsageError: This runtime was closed, or `timeout` is negative.
        """
        self._gate.enter()  # inside from now on, so that close() waits for it
        try:
            try:
                inputs = self._checked(_copied(batch))
            except GhostDeployError as error:
                future = self._submissions.refused(error)
                self._gate.leave()
                return future
            pieces = self._split(inputs)
            merge = partial(first_output, count=len(inputs[self._port.name]))
            work = Work(start=self._start, merge=merge, explain=self._explain, leave=self._gate.leave)
            self._submissions.wait_for_room(timeout)
        except BaseException:
            self._gate.leave()
            raise
        return self._submissions.add(pieces, work)

    def warmup(self, runs: int = 3) -> None:
        """Runs `runs` times on zeros, so that the first real call finds memory and threads warm.

        Raises:
            UsageError: `runs` is not a whole number from 0, or this runtime was closed.
        """
        runs = require_count("runs", runs, least=0)
        example = {name: port.example() for name, port in self._ports.items()}
        for _ in range(runs):
            self.infer(example)

    def info(self) -> dict[str, Any]:
        """Returns what runs here: model, engine, device, threads, precision, inputs and outputs; JSON-ready."""
        facts, opened = self._interface, self._opened
        return {
            "name": facts.name,
            "target": facts.target,
            "precision": facts.precision,
            "engine": self.engine,
            "engine_version": opened.version,
            "engine_precision": opened.precision,
            "int8_layers": self._int8_layers(),
            "device": opened.device,
            "threads": opened.threads,
            "streams": opened.streams,
            "profile": self._settings.profile,
            "queue": self._submissions.capacity,
            "async": "engine" if opened.queues else "threads",
            "cache": opened.cache if self._settings.cache else "off",
            "batch": "dynamic" if self._port.batch is None else self._port.batch,
            "inputs": [describe(spec) for spec in facts.inputs],
            "outputs": [describe(spec) for spec in facts.outputs],
            "classes": len(facts.labels),
        }

    def placement(self) -> RuntimePlacement:
        """Returns what computes this network, and by which kernels; see `Settings.trace`."""
        kernels, opened = self._kernels(), self._opened
        return RuntimePlacement(
            device=opened.device,
            arithmetic=opened.precision,
            int8_layers=self._int8_layers(),
            threads=opened.threads,
            kernels=kernels,
            because=None if kernels is not None else f"{self.engine} does not name its kernels",
        )

    def _int8_layers(self) -> str:
        """Returns how INT8 layers are computed: in integers, in float, or that there are none."""
        if self._interface.precision != "int8":
            return "none"
        return "integer" if self._opened.integers else "float"

    def close(self) -> None:
        """Frees the engine after the calls under way, the submitted ones and their callbacks; safe to call twice."""
        if self._gate.close():
            self._workers.close()
            self._pieces.close()
            self._submissions.close()
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuses `pickle` and `copy`, and so the queues of multiprocessing: an engine is not data."""
        raise UsageError(
            f"the loaded model of {self._where} cannot be pickled or copied",
            hint="give the path of the bundle instead, and call gd.load in each process",
        )

    @property
    def _where(self) -> str:
        return self._interface.where

    def _open_checked(self) -> Engine:
        try:
            opened = self._open()
        except (GhostDeployError, MemoryError):
            raise
        except Exception as error:
            if _NO_MEMORY.search(str(error)):
                raise _no_memory(self.engine, self._where) from error
            hint = "export the bundle again, or install the engine version shown by: ghostdeploy inspect"
            raise BundleError(f"{self.engine} refuses {self._where}: {reason(error)}", hint=hint) from error
        try:
            require_match(self._interface, opened)
        except BundleError:
            self._close()
            raise
        return opened

    def _call(self, batch: NDArray[Any]) -> NDArray[Any]:
        return self._compute(self._checked(batch))[0]

    def _checked(self, batch: NDArray[Any] | Arrays) -> Arrays:
        port = self._port
        if isinstance(batch, dict):
            return check_all(batch, self._ports, where=self._where)
        if len(self._ports) > 1:
            raise UsageError(f"{self._where} has inputs {', '.join(self._ports)}", hint="call infer({name: array, …})")
        return {port.name: port.check(batch)}

    def _split(self, inputs: Arrays) -> list[Arrays]:
        size, count = self._port.batch, len(inputs[self._port.name])
        return [inputs] if size is None or size == count else list(chunks(inputs, size))

    def _compute(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        count = len(inputs[self._port.name])
        try:
            pieces = self._split(inputs)
            if pieces[0] is inputs:
                return self._run(inputs)
            if len(pieces) > 1 and self._opened.streams > 1:
                parts = list(self._pieces.map(self._run, pieces))
            else:
                parts = [self._run(piece) for piece in pieces]
        except Exception as error:
            explained = self._explain(error)
            if explained is error:
                raise
            raise explained from error
        return [np.concatenate(output)[:count] for output in zip(*parts, strict=True)]

    def _explain(self, error: BaseException) -> BaseException:
        """Returns what the caller gets for an error of the engine."""
        if isinstance(error, (GhostDeployError, MemoryError)) or not isinstance(error, Exception):
            return error
        explained: GhostDeployError
        if _NO_MEMORY.search(str(error)):
            explained = _no_memory(self.engine, self._where)
        else:
            explained = BundleError(f"{self.engine} failed while running {self._where}: {reason(error)}")
        explained.__cause__ = error
        return explained


def _copied(batch: Any) -> Any:
    """Returns a batch whose memory nobody else writes to."""
    if isinstance(batch, dict):
        return {name: _copied(array) for name, array in batch.items()}
    return np.array(batch, order="C") if isinstance(batch, np.ndarray) else batch


def _no_memory(engine: str, where: str) -> UnsupportedHardware:
    return UnsupportedHardware(f"{engine} ran out of memory for {where}", hint="free some memory, or raise its limit")


def reason(error: Exception) -> str:
    """Returns the line of a native library's message that says what is wrong: the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

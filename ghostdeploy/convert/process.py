"""The parent's side of a converter: start early, hand over one job, wait with a limit, report how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from ghostdeploy.convert.base import ExportJob, ExportResult
from ghostdeploy.convert.memory import LARGE_BLOCK
from ghostdeploy.errors import ExportFailed, MissingDependency, OutputError
from ghostdeploy.isolation import child_command, child_environment
from ghostdeploy.targets import pip_install
from ghostdeploy.telemetry import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

_LOOK_SECONDS = 0.2
"""How often a converter's log is looked at for progress."""

_SURROUNDINGS = {**VARIABLES, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
"""Environment of a converter: no telemetry, its log at once."""
INDUCTOR_CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Names torch's cache of compiled code; without it torch makes `torchinductor_<user>` in TMPDIR and leaves it there."""
_FRUGAL = {"MALLOC_MMAP_THRESHOLD_": str(LARGE_BLOCK)}
"""Large blocks of memory go back when they are freed; glibc reads it."""
_STEADY = {"MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}
"""Memory is kept for the next run: mapping it anew made a sixth of a quantizer's time."""


class Worker(Protocol):
    """What runs in a converter process: a row of the target table, or another step of an export."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def exporter(self) -> str:
        """Import string of an `Exporter`."""
        ...

    @property
    def export_requirement(self) -> str:
        """What pip must install for it."""
        ...


class Converter:
    """One converter process, usable for one job.

    Args:
        target: What it runs.
        log: File for the converter's output; torch's cache is beside it.
        frugal: Memory that it frees goes back to the system at once: for work that makes and drops copies of the
            weights, not for work that needs blocks of the same size over and over.
    """

    def __init__(self, target: Worker, log: Path, *, frugal: bool = False) -> None:
        self._target = target
        self._log = log
        command = child_command("ghostdeploy.convert.child", target.exporter, target.export_requirement)
        surroundings = _SURROUNDINGS | (_FRUGAL if frugal else _STEADY)
        surroundings[INDUCTOR_CACHE] = os.environ.get(INDUCTOR_CACHE, f"{log.absolute()}.torch")
        with log.open("xb") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=child_environment(**surroundings),
                start_new_session=True,  # Ctrl-C reaches the parent, which closes us
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the converter."""
        return self._process.pid

    def convert(
        self, job: ExportJob, *, seconds: float, on_progress: Callable[[int, int], None] | None = None
    ) -> ExportResult:
        """Runs the job.

        Args:
            job: What to convert; `job.result` must not exist yet.
            seconds: Time limit.
            on_progress: Called with done and total of a converter that prints lines `progress: 3/10`.

        Raises:
            ExportFailed: It failed, crashed, was killed, or took too long; its log is named.
            MissingDependency: A library it needs cannot be imported.
            OutputError: It could not write its files.
        """
        end = time.monotonic() + seconds
        asked = Path(job.result).with_suffix(".job")
        asked.write_bytes(msgspec.json.encode(job))
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(msgspec.json.encode(str(asked)) + b"\n")
            pipe.flush()
            self._wait(end, on_progress)
        except subprocess.TimeoutExpired as error:
            raise self._failed(
                f"took more than {seconds:g} s and was stopped", hint="raise the limit with --timeout"
            ) from error
        except BrokenPipeError as error:
            self._process.wait()
            raise self._failed(self._ending()) from error
        return self._read(job)

    def close(self) -> None:
        """Ends the process and those that it started, whatever they are doing."""
        if self._process.poll() is None:
            self._kill()
        self._process.wait()
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:  # it went away with bytes still in the pipe
                return

    def _kill(self) -> None:
        if not hasattr(os, "killpg"):
            self._process.kill()
            return
        with suppress(ProcessLookupError, PermissionError):  # it has just ended: macOS says the latter
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own

    def _wait(self, end: float, on_progress: Callable[[int, int], None] | None) -> None:
        if on_progress is None:
            self._process.wait(max(0.0, end - time.monotonic()))
            return
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                self._process.wait(min(_LOOK_SECONDS, left))
            except subprocess.TimeoutExpired:
                if left <= _LOOK_SECONDS:
                    raise
                for done, total in last_progress(self._log):
                    on_progress(done, total)
            else:
                return

    def _read(self, job: ExportJob) -> ExportResult:
        try:
            result = msgspec.json.decode(Path(job.result).read_bytes(), type=ExportResult)
        except FileNotFoundError as error:
            raise self._failed(self._ending()) from error
        if result.status == "missing":
            hint = pip_install(self._target.export_requirement)
            raise MissingDependency(f"export to {self._target.name}: {result.message}", hint=hint)
        if result.status == "no space":
            raise OutputError(f"the {self._target.name} converter could not write: {result.message}")
        if result.status == "failed":
            raise self._failed(f"failed: {result.message}")
        return result

    def _ending(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"exited without a result (exit code {code})"

    def _failed(self, what: str, *, hint: str | None = None) -> ExportFailed:
        return ExportFailed(f"the {self._target.name} converter {what}", log=self._log, hint=hint)


def last_progress(log: Path) -> list[tuple[int, int]]:
    """Returns (done, total) of the last line `progress: 3/10` near the end of a log, [] if there is none."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    for line in reversed(lines):
        word, _, share = line.partition("progress: ")
        done, _, total = share.partition("/")
        if not word and done.isdigit() and total.isdigit():
            return [(int(done), int(total))]
    return []

"""What a run has done so far, one JSON document per line, each flushed to disk before the run continues.

The first line identifies the request. An incomplete last line was left by a killed run and is dropped. A process that
has the journal open holds a lock on it, which the kernel releases when the process ends.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import msgspec

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.bundle.workspaces import sweep
from ghostdeploy.deploy.tune.ownership import made_by_tune
from ghostdeploy.errors import BadInput, OutputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

NAME = "journal.jsonl"
SCHEMA = 1
_FIRST = b'{"event":"request"'


class Header(Record, frozen=True, kw_only=True, tag="request", tag_field="event"):
    """The request that the state belongs to."""

    schema: int = SCHEMA
    model: str
    """SHA-256 over weights and structure."""
    options: str
    """SHA-256 over what exports depend on, image sets included."""
    tools: str
    """Versions of ghostdeploy and the libraries that it calls."""
    machine: str
    """Processor, instruction set, cores: where the times come from."""


class Exported(Record, frozen=True, kw_only=True, tag="exported", tag_field="event"):
    """Bundles that one export made."""

    candidates: tuple[str, ...]
    seconds: float
    spent: float
    """Seconds since the request began, over all restarts."""


class Refused(Record, frozen=True, kw_only=True, tag="refused", tag_field="event"):
    """A candidate that could not be exported, or an entry that could not be run."""

    what: str
    why: str
    spent: float


class Round(Record, frozen=True, kw_only=True, tag="round", tag_field="event"):
    """One block of calls of each entry, one after the other."""

    sitting: int
    """Counts the times that processes were started for a measurement."""
    calls: dict[str, float]
    """Median seconds of a call, by entry."""
    queued: dict[str, float]
    """Seconds per image through the queue, by entry; empty where nobody asked."""
    spent: float


class Picked(Record, frozen=True, kw_only=True, tag="picked", tag_field="event"):
    """The end of a request: its last run is over."""

    sitting: int
    asked: str
    """Objective, limits and candidates that the pick is for."""
    budget: float
    """Seconds that it had."""
    pick: str
    """The entry."""
    spent: float


Event = Exported | Refused | Round | Picked
T = TypeVar("T")
_READ_HEADER = msgspec.json.Decoder(Header)
_READ_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Journal:
    """The journal of one state folder, open and locked.

    Args:
        folder: The state folder, made when absent.
        header: The request.
        restart: Discard an earlier run, whatever its request.

    Raises:
        UsageError: The folder is that of another request, of something else, or another run has it open.
        BadInput: The journal is damaged.
        OutputError: The folder cannot be written.

    Attributes:
        events: All that happened, in order.
    """

    def __init__(self, folder: Path, header: Header, *, restart: bool = False) -> None:
        self.folder = folder
        self._path = folder / NAME
        if folder.exists() and not self._path.is_file() and any(folder.iterdir()):
            raise UsageError(f"{folder} exists and has no tune journal", hint="choose another --out or --name")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = _open(self._path)
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        try:
            _require_ours(self._stream, self._path)
            _lock(self._stream, folder)
            if restart:
                self._forget()
            self.events = self._take_over(header)
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    sweep(path)  # what a killed run was writing there: nothing may be exported there again
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stream.close()

    @property
    def spent(self) -> float:
        """Seconds that killed runs of the request in hand used; 0 when the last request came to its end."""
        return 0.0 if not self.events or isinstance(self.events[-1], Picked) else self.events[-1].spent

    @property
    def rounds(self) -> list[Round]:
        """All measurements, in order."""
        return [event for event in self.events if isinstance(event, Round)]

    @property
    def refused(self) -> dict[str, str]:
        """Why candidates and entries are out, by name."""
        return {event.what: event.why for event in self.events if isinstance(event, Refused)}

    def append(self, event: Event) -> None:
        """Notes what happened, and returns when it is on the disk.

        Raises:
            OutputError: The disk is full.
        """
        self._write(event)
        self.events.append(event)

    def _write(self, line: Event | Header) -> None:
        try:
            self._stream.write(msgspec.json.encode(line) + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def _forget(self) -> None:
        found = list(self.folder.iterdir())
        foreign = sorted(path.name for path in found if path != self._path and not made_by_tune(path))
        if foreign:
            raise UsageError(
                f"{self.folder} holds {', '.join(foreign[:3])}, which tune did not write; nothing was removed",
                hint="move that elsewhere, or choose another --out or --name",
            )
        self._stream.truncate(0)
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self._path:
                path.unlink()

    def _take_over(self, header: Header) -> list[Event]:
        self._stream.seek(0)
        data = self._stream.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._stream.truncate(whole)
        lines = data[:whole].splitlines()
        if not lines:
            self._write(header)
            return []
        found = _decode(lines[0], _READ_HEADER, self._path, 1)
        if found != header:
            raise UsageError(
                f"{self.folder} was made {_difference(found, header)}",
                hint="--force starts again; or choose another --out or --name",
            )
        return [_decode(line, _READ_EVENT, self._path, number) for number, line in enumerate(lines[1:], 2)]


def _open(path: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "ab+")


def _require_ours(stream: BinaryIO, path: Path) -> None:
    """Raises `UsageError` unless the journal is new or begins as ours do, torn or not."""
    regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    if regular:
        stream.seek(0)
    if not regular or not _FIRST.startswith(stream.read(len(_FIRST))):
        raise UsageError(f"{path} is not a tune journal, left unchanged", hint="choose another --out or --name")


def _decode(line: bytes, reader: msgspec.json.Decoder[T], path: Path, number: int) -> T:
    try:
        return reader.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"line {number} of {path} is not a valid entry: {error}", hint="--force starts again") from error


def _difference(found: Header, wanted: Header) -> str:
    """Returns how a state differs from the request, the weightiest difference first."""
    if found.schema != wanted.schema:
        return f"by another version of ghostdeploy (journal schema {found.schema}, this one writes {wanted.schema})"
    if found.model != wanted.model:
        return "for another model"
    if found.options != wanted.options:
        return "with other options or image sets"
    if found.machine != wanted.machine:
        return f"on another machine ({found.machine}; this one is {wanted.machine})"
    return f"with other versions ({found.tools}; here are {wanted.tools})"


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror}", hint="free some space, or choose another --out")


def _lock(stream: BinaryIO, folder: Path) -> None:
    try:
        import fcntl  # POSIX only; elsewhere two runs at a time are not noticed
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"{folder} is in use by another run", hint="wait for it, or choose another --out") from error

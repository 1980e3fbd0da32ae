"""Results of slow conversions, cached by the hash of everything they depend on.

One file per result in `$GHOSTDEPLOY_CACHE`, by default `~/.cache/ghostdeploy` (or `$XDG_CACHE_HOME/ghostdeploy`); an
empty variable switches it off. See `cached` for the file format and the ownership rules. When the files exceed the
limit, the least recently used are removed first.

The folder may hold other files, such as downloads: only regular files of this user with our name patterns are counted
or removed.

    [tflite-]<SHA-256>.result           a result
    .ghostdeploy-<8 characters>.part    one that is being written, or was left by a killed process

A finished conversion is one stream of bytes: the record of the result, then the files of its folder.

    length of the record (8 bytes, big-endian) · record (JSON) · content of each file, in the record's order
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.cached import PIECE, keep_checked, open_checked, own_files, warn_of_cache
from ghostdeploy.convert.base import ExportResult  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.files import is_relative_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

LIMIT = 1 << 30
"""Bytes of all files together."""
_SUFFIX = ".result"
_RESULT_NAME = re.compile(r"([a-z]+-)?[0-9a-f]{64}\.result")


class Cache:
    """A folder of results.

    Args:
        folder: Made when the first result is written; None keeps nothing.
        limit: Bytes of all files together.
        asked_for: The user named the folder, and gets a warning where it cannot be used.
    """

    def __init__(self, folder: Path | None, *, limit: int = LIMIT, asked_for: bool = False) -> None:
        self._folder = folder
        self._asked_for = asked_for
        self._limit = limit

    @classmethod
    def of_user(cls) -> Cache:
        """Returns the cache that the environment names."""
        named = os.environ.get("GHOSTDEPLOY_CACHE")
        if named is not None:
            return cls(Path(named) if named else None, asked_for=True)
        root = os.environ.get("XDG_CACHE_HOME", "")
        if Path(root).is_absolute():  # relative ones are ignored, by the XDG rules
            return cls(Path(root) / "ghostdeploy")
        try:
            home = Path.home()
        except RuntimeError:  # no HOME, and a user without a name, as in many containers
            return cls(None)
        known = home.is_absolute() and os.environ.get("HOME") != ""  # an empty one would be read as the root
        return cls(home / ".cache" / "ghostdeploy" if known else None)

    @property
    def on(self) -> bool:
        """Whether anything is ever kept."""
        return self._folder is not None

    @property
    def folder(self) -> Path | None:
        """Where results are kept; None where nothing ever is."""
        return self._folder

    def get(self, key: str) -> bytes | None:
        """Returns a result, None when there is none or it is damaged."""
        with self.find(key) as stream:
            return None if stream is None else stream.read()

    @contextlib.contextmanager
    def find(self, key: str) -> Iterator[BinaryIO | None]:
        """Gives the stream of a result whose hash was checked, for results too large for memory.

        None when there is none or it is damaged.
        """
        if self._folder is None:
            yield None
            return
        name = key + _SUFFIX
        with open_checked(self._folder, name, LIMIT) as stream:
            if stream is not None:
                with contextlib.suppress(OSError):
                    os.utime(self._folder / name)
            yield stream

    def put(self, key: str, result: bytes) -> None:
        """Keeps a result; where the folder cannot be written it is not kept."""
        self.write(key, [result])

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """Keeps a result that comes in pieces; one larger than the limit is not kept."""
        if self._folder is None:
            return
        try:
            if keep_checked(self._folder, key + _SUFFIX, pieces, self._limit):
                self._shrink()
        except OSError as error:
            if self._asked_for:
                why = f"cannot be written ({error.strerror or error})"
                warn_of_cache(self._folder, why, "set GHOSTDEPLOY_CACHE to a folder of your own, or to '' for no cache")

    def _shrink(self) -> None:
        assert self._folder is not None
        found = [(state.st_mtime, state.st_size, path) for path, state in own_files(self._folder, _RESULT_NAME)]
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size


_LENGTH = 8
_MAX_RECORD = 64 << 20


class _File(Record, frozen=True, kw_only=True):
    path: str
    """Relative to the folder."""
    bytes: int


class _Contents(Record, frozen=True, kw_only=True):
    result: ExportResult
    files: tuple[_File, ...]


def pack(folder: Path, result: ExportResult) -> Iterator[bytes]:
    """Yields the stream of a conversion.

    Args:
        folder: What the exporter wrote.
        result: What it reported.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [_File(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size) for path in paths]
    record = msgspec.json.encode(_Contents(result=result, files=tuple(files)))
    yield len(record).to_bytes(_LENGTH, "big") + record
    for path in paths:
        with path.open("rb") as stream:
            while piece := stream.read(PIECE):
                yield piece


def unpack(stream: BinaryIO, folder: Path) -> ExportResult:
    """Writes the files of a stream into a folder and returns the result.

    Args:
        stream: What `pack` gave; its hash has been checked.
        folder: An existing, empty folder.

    Raises:
        ValueError: It is no such stream, or a file would leave the folder.
        OSError: The folder cannot be written.
    """
    contents = _contents(stream)
    for file in contents.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            left = file.bytes
            while left and (piece := stream.read(min(left, PIECE))):
                out.write(piece)
                left -= len(piece)
        if left:
            raise ValueError(f"{file.path} ends {left} bytes early")
    return contents.result


def _contents(stream: BinaryIO) -> _Contents:
    """Reads the record; every name in it stays in the folder, and its sizes are those of the stream."""
    begin = stream.tell()
    left = stream.seek(0, 2) - begin - _LENGTH
    stream.seek(begin)
    length = int.from_bytes(stream.read(_LENGTH), "big")
    if not 0 < length <= min(left, _MAX_RECORD):
        raise ValueError(f"its record has {length} bytes, expected {length}")
    try:
        contents = msgspec.json.decode(stream.read(length), type=_Contents)  # its errors are ValueErrors
    except RecursionError as error:
        raise ValueError("its record is nested too deeply") from error
    names = [file.path for file in contents.files]
    claimed = () if contents.result.written is None else contents.result.written.files
    if outside := [name for name in (*names, *claimed) if not is_relative_name(name)]:
        raise ValueError(f"{outside[0]!r} is outside the folder")
    if len(set(names)) < len(names) or not set(claimed) <= set(names):
        raise ValueError("it lists files that it does not contain, or one twice")
    total = sum(file.bytes for file in contents.files)
    if any(file.bytes < 0 for file in contents.files) or total != left - length:
        raise ValueError(f"it ends {total - left + length} bytes early")
    if contents.result.status != "done" or contents.result.written is None:
        raise ValueError("it contains no finished conversion")
    return contents

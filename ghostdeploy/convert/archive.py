"""A finished conversion as one stream of bytes: the record of the result, then the files of its folder.

length of the record (8 bytes, big-endian) · record (JSON) · content of each file, in the record's order
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.convert.base import ExportResult  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.convert.cache import PIECE
from ghostdeploy.files import is_relative_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

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
        raise ValueError(f"its record has {length} bytes, {left} are there")
    try:
        contents = msgspec.json.decode(stream.read(length), type=_Contents)  # its errors are ValueErrors
    except RecursionError as error:
        raise ValueError("its record is nested too deeply") from error
    names = [file.path for file in contents.files]
    claimed = () if contents.result.written is None else contents.result.written.files
    if outside := [name for name in (*names, *claimed) if not is_relative_name(name)]:
        raise ValueError(f"{outside[0]!r} leaves the folder")
    if len(set(names)) < len(names) or not set(claimed) <= set(names):
        raise ValueError("it names files that it does not hold, or one twice")
    total = sum(file.bytes for file in contents.files)
    if any(file.bytes < 0 for file in contents.files) or total != left - length:
        raise ValueError(f"it ends {total - left + length} bytes early")
    if contents.result.status != "done" or contents.result.written is None:
        raise ValueError("it holds no finished conversion")
    return contents

"""A finished conversion as one stream of bytes: the record of the result, then the files of its folder.

length of the record (8 bytes, big-endian) · record (JSON) · content of each file, in the record's order
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.exporters.base import ExportResult  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.exporters.cache import PIECE
from ghostdeploy.manifest import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_LENGTH = 8


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
    record = stream.read(int.from_bytes(stream.read(_LENGTH), "big"))
    contents = msgspec.json.decode(record, type=_Contents)  # its errors are ValueErrors
    for file in contents.files:
        relative = PurePosixPath(file.path)
        if relative.is_absolute() or ".." in relative.parts or {"\\", "\0"} & set(file.path):
            raise ValueError(f"{file.path!r} leaves the folder")
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            left = file.bytes
            while left and (piece := stream.read(min(left, PIECE))):
                out.write(piece)
                left -= len(piece)
        if left:
            raise ValueError(f"{file.path} ends {left} bytes early")
    return contents.result

"""What each image gave, in a file that other machines can read.

    {"record": "ghostdeploy eval", "schema": 1, "subject": {…}, "data": {…}, "shard": "1/4", …}
    {"image": 0, "got": …}                     with "reference", where there is one
    …
    {"images": 250}                            the end: without it the file was cut

Plain JSON lines; `merge` puts several files together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove.sharded.job import Subject  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.errors import DataError
from ghostdeploy.files import read_limited, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KIND = "ghostdeploy eval"
SCHEMA = 1
_LARGEST = 8 << 30
"""Bytes of a file."""


class Data(Record, frozen=True, kw_only=True):
    """The labelled set."""

    source: str
    """Where it was, as given."""
    fingerprint: str
    count: int
    """Images of the whole set."""


class Header(Record, frozen=True, kw_only=True):
    """What a file records."""

    record: str = KIND
    schema: int = SCHEMA
    ghostdeploy: str
    """Version that wrote it."""
    subject: Subject
    reference: Subject | None = None
    """The bundle that it is compared with."""
    devices: tuple[str, ...]
    """Processors and engines that its images ran on."""
    data: Data
    shard: str | None = None
    """`I/N`; None is the whole set."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one image gave."""

    image: int
    """Of the set, from 0."""
    got: Any
    reference: Any = None
    """What it gave in the reference."""


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line."""

    images: int
    """Lines of images before it."""


class Recorded(msgspec.Struct, frozen=True):
    """A file that was read."""

    path: Path
    header: Header
    lines: list[Line]


def write(path: Path, header: Header, lines: Sequence[Line]) -> None:
    """Writes a record, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    encoder = msgspec.json.Encoder()
    every = [encoder.encode(one) for one in (header, *lines, End(len(lines)))]
    write_whole(path, b"\n".join(every) + b"\n", what="the record")


def read(path: Path) -> Recorded:
    """Reads a record.

    Raises:
        DataError: It is none, of another schema, damaged, or cut.
    """
    try:
        data = read_limited(path.resolve(), _LARGEST)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    first, _, rest = data.partition(b"\n")
    header = _header(first, path)
    if not data.endswith(b"\n"):
        raise DataError(
            f"the last line of {path} is torn, so its evaluation or its copy was cut",
            hint="copy it again, or record it again",
        )
    decoder, lines, end = msgspec.json.Decoder(dict[str, Any]), [], None
    for number, text in enumerate(rest.splitlines(), 2):
        if end is not None:
            raise DataError(f"line {number} of {path} comes after its end", hint="give each record by itself")
        one = _line(decoder, text, number, path)
        if isinstance(one, End):
            end = one
        else:
            lines.append(one)
    if end is None or end.images != len(lines):
        told = "an end" if end is None else f"{end.images} images, as its end says"
        raise DataError(
            f"{path} has {len(lines)} images, expected {told}: it was cut", hint="copy it again, or record it again"
        )
    return Recorded(path, header, lines)


def _header(text: bytes, path: Path) -> Header:
    """Reads the first line."""
    try:
        kind = msgspec.json.decode(text, type=dict[str, Any])
        if kind.get("record") != KIND:
            raise DataError(f"{path} is not a record of eval", hint="make one with eval --record FILE.jsonl")
        if kind.get("schema") != SCHEMA:
            raise DataError(f"{path} has schema {kind.get('schema')}, expected {SCHEMA}", hint="update ghostdeploy")
        return msgspec.convert(kind, Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a record of eval: {str(error).replace('`', '')}",
            hint="make one with eval --record FILE.jsonl",
        ) from error


def _line(decoder: Any, text: bytes, number: int, path: Path) -> Line | End:
    try:
        found = decoder.decode(text)
        kind: type[Line | End] = End if "images" in found else Line
        return msgspec.convert(found, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"line {number} of {path} is damaged: {str(error).replace('`', '')}",
            hint="copy it again, or record it again",
        ) from error

"""WebDataset: images and labels in tar archives, which are indexed and read where they lie.

    shard-000.tar        a/001.jpg  a/001.cls   a/002.jpg  a/002.json …
    folder of such       shard-000.tar, shard-001.tar, … in the order of their names

Members of one sample have one name up to the first dot of its last part, and stand side by side. `.cls` is the class
index or name as text; `.json` may have it as `label` or `cls`. Nothing is unpacked, so no member can name a path of the
system; pickles and other files that can run code when they are read refuse the whole archive. Source: the format of
github.com/webdataset/webdataset.
"""

from __future__ import annotations

import itertools
import os
import tarfile
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from ghostdeploy.bundle.manifest import LeftOut
from ghostdeploy.decode import MAX_BYTES
from ghostdeploy.deploy.prove.image_folders import EXAMPLES
from ghostdeploy.deploy.prove.image_labels import listing
from ghostdeploy.encoded import Slice
from ghostdeploy.errors import DataError
from ghostdeploy.files import open_regular
from ghostdeploy.preprocess import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ghostdeploy.deploy.prove.image_folders import Listing

SUFFIX = ".tar"
PACKED = (".tar.bz2", ".tar.gz", ".tar.xz", ".tar.zst", ".tbz2", ".tgz", ".txz")
RUNS_CODE = frozenset({"pyd", "pkl", "pickle", "pth", "pt", "joblib", "dill"})
"""Endings of members that are read by running what they say."""
_LABEL_BYTES = 1 << 20
_HEADER_BYTES = 1 << 20
"""Of the name and attributes of a member; tarfile reads as much as an archive claims."""
_KINDS = {tarfile.SYMTYPE: "links", tarfile.LNKTYPE: "links", tarfile.GNUTYPE_SPARSE: "sparse files"}


class _Limited:
    """A file of which tarfile reads headers only, never more than `_HEADER_BYTES` at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._stream.read(size)


class _Member(NamedTuple):
    key: str
    """Name up to the first dot of its last part."""
    ending: str
    """What comes after, in lower case."""
    slice: Slice


class _LeftOut:
    """Counts members that are not read."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def leave(self, reason: str, name: str) -> None:
        self._names.setdefault(reason, []).append(name)

    def records(self) -> list[LeftOut]:
        return [
            LeftOut(reason=reason, count=len(names), examples=tuple(names[:EXAMPLES]))
            for reason, names in self._names.items()
        ]


def list_tar(paths: Sequence[Path], source: str, *, labelled: bool) -> Listing:
    """Lists the images of archives.

    Args:
        paths: The archives in order.
        source: The set, for messages.
        labelled: Labels are needed.

    Raises:
        DataError: An archive is damaged, cut or compressed, holds a member that could run code, or a sample has several
            images or a damaged label.
        OSError: One is not readable.
    """
    images: list[Slice] = []
    labels: list[int | str | None] = []
    left = _LeftOut()
    for path in paths:
        for _, members in itertools.groupby(_members(path, left), key=lambda one: one.key):
            sample = list(members)
            found = [one for one in sample if f".{one.ending}" in IMAGE_SUFFIXES]
            if len(found) > 1:
                both = " and ".join(one.slice.name for one in found[:2])
                raise DataError(f"a sample of {path} has several images, {both}, expected one")
            if found:
                images.append(found[0].slice)
                labels.append(_label(sample, path) if labelled else None)
    names = [image.name for image in images]
    return listing(images, labels, names=names, source=source, labelled=labelled, left_out=left.records())


def _members(path: Path, left: _LeftOut) -> Iterator[_Member]:
    """Yields the images and labels of an archive."""
    with open_regular(path.resolve()) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            with tarfile.open(fileobj=_Limited(stream), mode="r:") as archive:  # type: ignore[call-overload]
                while (one := archive.next()) is not None:
                    archive.members.clear()  # else it keeps them all
                    if one.offset_data + one.size > size:
                        raise tarfile.ReadError(f"it ends inside {one.name}")
                    if (member := _member(one, path, left)) is not None:
                        yield member
                # tarfile takes a damaged header for the end
                stream.seek(archive.offset)
                if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("it has no end")
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise DataError(f"{path} is not a readable tar archive: {error}", hint="it may be cut: copy it") from error


def _member(one: tarfile.TarInfo, path: Path, left: _LeftOut) -> _Member | None:
    """Returns a member that is an image or a label."""
    folder, _, last = one.name.rpartition("/")
    stem, _, ending = last.partition(".")
    ending = ending.lower()
    if ending.rpartition(".")[2] in RUNS_CODE:
        raise DataError(
            f"{path} holds {one.name}, which runs code when it is read", hint="store labels as .cls or .json"
        )
    if one.isdir():
        return None
    if not one.isreg() or one.issparse():
        left.leave(_KINDS.get(one.type, "special files"), one.name)
        return None
    image, label = f".{ending}" in IMAGE_SUFFIXES, ending in ("cls", "json")
    if not stem or not (image or label):
        left.leave(f"members ending in .{ending}" if ending else "members without a suffix", one.name)
        return None
    if one.size > (most := MAX_BYTES if image else _LABEL_BYTES):
        raise DataError(f"{one.name} of {path} has {one.size} bytes, expected at most {most}")
    return _Member(f"{folder}/{stem}", ending, Slice(path.resolve(), one.name, one.offset_data, one.size))


def _label(sample: Sequence[_Member], path: Path) -> int | str | None:
    """Returns the label of a sample; None where it has none."""
    by_ending = {one.ending: one.slice for one in sample}
    if (text := by_ending.get("cls")) is not None:
        try:
            found = text.read().decode().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{text.name} of {path} is no text") from error
        if not found:
            raise DataError(f"{text.name} of {path} is empty, expected a class index or name")
        return int(found) if found.lstrip("-").isdecimal() else found
    if (record := by_ending.get("json")) is None:
        return None
    try:
        fields = msgspec.json.decode(record.read(), type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{record.name} of {path} is not a JSON object: {error}") from error
    given = fields.get("label", fields.get("cls"))
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise DataError(f"{record.name} of {path} has label {given!r}, expected a class index or name")
    return given

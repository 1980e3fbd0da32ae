"""Files of a cache: SHA-256 of the rest (32 bytes), then the content; read only where no other user can write.

A file appears whole or not at all, and a damaged one counts as absent. The digest finds damage, not malice: a folder or
file that another user owns or may write is ignored, with one warning. Reading takes no lock, so any number of processes
may use one folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

from ghostdeploy.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PIECE = 1 << 20
"""Bytes of a large file that are in memory at a time."""
_DIGEST = 32
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PART_NAME = re.compile(r"\.ghostdeploy-[a-z0-9_]{8}\.part")
_STALE_S = 3600
"""Age of a half-written file whose writer was killed: nothing of ours takes that long to write."""
_log = logging.getLogger("ghostdeploy")


def is_own_file(state: os.stat_result) -> bool:
    """Returns whether what was looked at, without following links, is a regular file of this user."""
    return stat.S_ISREG(state.st_mode) and (not hasattr(os, "geteuid") or state.st_uid == os.geteuid())


def trusted(state: os.stat_result, path: Path) -> bool:
    """Returns whether only this user, or root, may write a file or folder; warns once per path where others may.

    Args:
        state: Of what was opened.
        path: For the warning.
    """
    if not hasattr(os, "geteuid"):  # no POSIX owners and modes
        return True
    if state.st_uid not in (0, os.geteuid()):
        warn_of_cache(path, f"belongs to another user (id {state.st_uid})", "use a folder of your own")
    elif state.st_mode & _OTHERS_WRITE:
        warn_of_cache(path, "is writable by other users", f"chmod go-w {path}")
    else:
        return True
    return False


def open_trusted(folder: Path, name: str) -> BinaryIO | None:
    """Opens a file of a cache; None where it is absent, no regular file, or not ours alone to write.

    Args:
        folder: The cache.
        name: Of the file in it.
    """
    path = folder / name
    try:
        stream = open_regular(path)
    except OSError:
        return None
    if trusted(folder.stat(), folder) and trusted(os.fstat(stream.fileno()), path):
        return stream
    stream.close()
    return None


@contextmanager
def open_checked(folder: Path, name: str, most: int) -> Iterator[BinaryIO | None]:
    """Gives the stream of a cache's entry: SHA-256 of the rest (32 bytes), then what was kept.

    Args:
        folder: Of the cache.
        name: Of the entry.
        most: Bytes of a result above which it is not read.

    Yields:
        The stream behind the digest; None when there is no entry, it is damaged or too large, or not ours alone.
    """
    stream = open_trusted(folder, name)
    if stream is None:
        yield None
        return
    with stream:
        known = stream.read(_DIGEST)
        large = os.fstat(stream.fileno()).st_size > most + _DIGEST
        whole = not large and digest_of(stream).digest() == known
        if whole:
            stream.seek(_DIGEST)
        yield stream if whole else None


def keep_checked(folder: Path, name: str, pieces: Iterable[bytes], most: int) -> bool:
    """Writes an entry of a cache, which appears whole or not at all; see `open_checked`.

    Returns:
        False where the folder is not ours alone to write, or the result is larger than `most`: nothing is kept.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not trusted(folder.stat(), folder):
        return False
    with suppress(OSError):  # a courtesy
        sweep_parts(folder)
    descriptor, part = new_part(folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            fits = _fill(stream, pieces, most)
        if fits:
            part.replace(folder / name)
    finally:
        part.unlink(missing_ok=True)
    return fits


def digest_of(stream: BinaryIO) -> hashlib._Hash:
    """Returns the SHA-256 of what is left in a stream, read in pieces."""
    digest = hashlib.sha256()
    while piece := stream.read(PIECE):
        digest.update(piece)
    return digest


def new_part(folder: Path) -> tuple[int, Path]:
    """Makes a file to write a cache's entry to, renamed when it is whole; returns its descriptor and path."""
    path = folder / f".ghostdeploy-{os.urandom(4).hex()}.part"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), path


def sweep_parts(folder: Path) -> None:
    """Removes what `new_part` made for a writer that was killed since; other `.part` files may be foreign, and stay."""
    for path, state in own_files(folder, _PART_NAME):
        if state.st_mtime < time.time() - _STALE_S:
            path.unlink(missing_ok=True)


def own_files(folder: Path, form: re.Pattern[str]) -> list[tuple[Path, os.stat_result]]:
    """Returns the regular files of this user in a folder whose names have a form of ours."""
    found = []
    for path in folder.iterdir():
        if form.fullmatch(path.name):
            with suppress(FileNotFoundError):  # another process was faster
                state = path.lstat()
                if is_own_file(state):
                    found.append((path, state))
    return found


@cache
def warn_of_cache(path: Path, why: str, cure: str) -> None:
    """Warns once per path of a cache that is not used."""
    _log.warning("cache %s %s, ignored: %s", path, why, cure)


def _fill(stream: BinaryIO, pieces: Iterable[bytes], limit: int) -> bool:
    """Writes digest and result; False when it is larger than the limit."""
    digest = hashlib.sha256()
    stream.write(bytes(_DIGEST))
    for piece in pieces:
        digest.update(piece)
        stream.write(piece)
        if stream.tell() > limit:
            return False
    stream.seek(0)
    stream.write(digest.digest())
    return True

"""Results of slow conversions, kept by the hash of all that they depend on.

One file per result in `$GHOSTDEPLOY_CACHE`, by default `~/.cache/ghostdeploy` (or `$XDG_CACHE_HOME/ghostdeploy`); an
empty variable switches it off. A file starts with the SHA-256 of the rest, so a damaged one is no result. Files are
written aside and renamed, and reading takes no lock: any number of processes may use one folder. When the files exceed
the limit, those not used for the longest time go first. The digest finds damage, not malice: a folder or file that
another user owns or may write is ignored, with one warning.

The folder may be anybody's, downloads included: only regular files of this user whose names have our forms are counted
or removed.

    [tflite-]<SHA-256>.result           a result
    .ghostdeploy-<8 characters>.part    one that is being written, or whose writer was killed
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.files import new_part, open_trusted, own_files, sweep_parts, trusted, warn_of_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

LIMIT = 1 << 30
"""Bytes of all files together."""
PIECE = 1 << 20
"""Bytes of a large result that are in memory at a time."""
_SUFFIX = ".result"
_RESULT_NAME = re.compile(r"([a-z]+-)?[0-9a-f]{64}\.result")
_DIGEST = 32


class Cache:
    """A folder of results.

    Args:
        folder: Made when the first result is written; None keeps nothing.
        limit: Bytes of all files together.
        asked_for: Somebody named the folder, and is told where it cannot be used.
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
        if Path(root).is_absolute():  # others say nothing, by the rules of XDG
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

    def get(self, key: str) -> bytes | None:
        """Returns a result, None when there is none or it is damaged."""
        with self.find(key) as stream:
            return None if stream is None else stream.read()

    @contextlib.contextmanager
    def find(self, key: str) -> Iterator[BinaryIO | None]:
        """Gives the stream of a result whose hash was checked, for results too large for memory.

        None when there is none or it is damaged.
        """
        stream = None if self._folder is None else open_trusted(self._folder, key + _SUFFIX)
        if stream is None or self._folder is None:
            yield None
            return
        path = self._folder / (key + _SUFFIX)
        with stream:
            known = stream.read(_DIGEST)
            large = os.fstat(stream.fileno()).st_size > LIMIT + _DIGEST
            whole = not large and digest_of(stream).digest() == known
            if whole:
                with contextlib.suppress(OSError):
                    os.utime(path)
                stream.seek(_DIGEST)
            yield stream if whole else None

    def put(self, key: str, result: bytes) -> None:
        """Keeps a result; where the folder cannot be written it is not kept."""
        self.write(key, [result])

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """Keeps a result that comes in pieces; one larger than the limit is not kept."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not trusted(self._folder.stat(), self._folder):
                return
            descriptor, part = new_part(self._folder)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    fits = _fill(stream, pieces, self._limit)
                if fits:
                    part.replace(self._folder / (key + _SUFFIX))
            finally:
                part.unlink(missing_ok=True)
            self._shrink()
        except OSError as error:
            if self._asked_for:
                why = f"cannot be written ({error.strerror or error})"
                warn_of_cache(self._folder, why, "set GHOSTDEPLOY_CACHE to a folder of your own, or to nothing")

    def _shrink(self) -> None:
        assert self._folder is not None
        sweep_parts(self._folder)
        found = [(state.st_mtime, state.st_size, path) for path, state in own_files(self._folder, _RESULT_NAME)]
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def digest_of(stream: BinaryIO) -> hashlib._Hash:
    """Returns the SHA-256 of what is left in a stream, read in pieces."""
    digest = hashlib.sha256()
    while piece := stream.read(PIECE):
        digest.update(piece)
    return digest


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

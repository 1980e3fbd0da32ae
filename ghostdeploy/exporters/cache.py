"""Results of slow conversions, kept by the hash of all that they depend on.

One file per result in `$GHOSTDEPLOY_CACHE`, by default `~/.cache/ghostdeploy` (or `$XDG_CACHE_HOME/ghostdeploy`); an
empty variable switches it off. A file starts with the SHA-256 of the rest, so a damaged one is no result. Files are
written aside and renamed, and reading takes no lock: any number of processes may use one folder. When the files exceed
the limit, those not used for the longest time go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

LIMIT = 1 << 30
"""Bytes of all files together."""
_SUFFIX = ".result"
_DIGEST = 32


class Cache:
    """A folder of results.

    Args:
        folder: Made when the first result is written; None keeps nothing.
        limit: Bytes of all files together.
    """

    def __init__(self, folder: Path | None, *, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit

    @classmethod
    def of_user(cls) -> Cache:
        """Returns the cache that the environment names."""
        named = os.environ.get("GHOSTDEPLOY_CACHE")
        if named is not None:
            return cls(Path(named) if named else None)
        root = os.environ.get("XDG_CACHE_HOME")
        return cls((Path(root) if root else Path.home() / ".cache") / "ghostdeploy")

    def get(self, key: str) -> bytes | None:
        """Returns a result, None when there is none or it is damaged."""
        if self._folder is None:
            return None
        path = self._folder / (key + _SUFFIX)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data[_DIGEST:]

    def put(self, key: str, result: bytes) -> None:
        """Keeps a result; where the folder cannot be written it is simply not kept."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(hashlib.sha256(result).digest() + result)
                Path(name).replace(self._folder / (key + _SUFFIX))
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
            self._shrink()

    def _shrink(self) -> None:
        assert self._folder is not None
        found = []
        for path in self._folder.glob("*" + _SUFFIX):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size

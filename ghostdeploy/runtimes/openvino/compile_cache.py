"""Compiled models kept between processes: one file per payload, engine, device and settings.

    <key>.blob = SHA-256 of the rest (32 bytes) | what the engine exported
    key        = SHA-256 of everything that the compiled model depends on

An engine trusts a compiled model as it trusts code, so a folder or file that another user owns or may write is ignored;
see `cached`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ghostdeploy.cached import keep_checked, open_checked
from ghostdeploy.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MAX_BLOB = 4 << 30


class CompileCache:
    """One entry of a cache folder.

    Args:
        folder: Made when something is written.
        key: What the compiled model depends on: the payload's hashes, the engine's version, device, settings.
    """

    def __init__(self, folder: Path, key: Iterable[str]) -> None:
        self._folder = folder
        self._path = folder / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()}.blob"

    def read(self) -> bytes | None:
        """Returns what the engine exported; None when there is no entry, or a damaged one."""
        with open_checked(self._folder, self._path.name, _MAX_BLOB) as stream:
            return None if stream is None else stream.read() or None

    def write(self, blob: bytes) -> bool:
        """Keeps what the engine exported; False where the folder is not ours alone to write, then nothing is kept.

        Raises:
            OutputError: The folder cannot be written, or the disk is full.
        """
        try:
            return keep_checked(self._folder, self._path.name, [blob], _MAX_BLOB)
        except OSError as error:
            raise OutputError(
                f"cache folder {self._folder} cannot be written: {error.strerror or error}",
                hint="give ghostdeploy.load a cache folder that this user may write to, or none",
            ) from error

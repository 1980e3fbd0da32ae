"""Compiled models kept between processes: one file per payload, engine, device and settings.

    <key>.blob = SHA-256 of the rest (32 bytes) | what the engine exported
    key        = SHA-256 of everything that the compiled model depends on
    .ghostdeploy-<8 characters>.part    one that is being written, or whose writer was killed: removed after an hour

A file appears whole or not at all, and a damaged one counts as absent. The digest finds damage, not malice: an engine
trusts a compiled model as it trusts code. So the folder is made for its owner alone, and a folder or file that another
user owns or may write is ignored, with one warning.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ghostdeploy.errors import OutputError
from ghostdeploy.files import new_part, open_trusted, sweep_parts, trusted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MAX_BLOB = 4 << 30
_DIGEST = hashlib.sha256().digest_size


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
        stream = open_trusted(self._folder, self._path.name)
        if stream is None:
            return None
        with stream:
            size = os.fstat(stream.fileno()).st_size
            data = b"" if size > _MAX_BLOB else stream.read(size)
        digest, blob = data[:_DIGEST], data[_DIGEST:]
        return blob if blob and hashlib.sha256(blob).digest() == digest else None

    def write(self, blob: bytes) -> bool:
        """Keeps what the engine exported; False where the folder is not ours alone to write, then nothing is kept.

        Raises:
            OutputError: The folder cannot be written, or the disk is full.
        """
        written: Path | None = None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not trusted(self._folder.stat(), self._folder):
                return False
            with suppress(OSError):  # a courtesy
                sweep_parts(self._folder)
            descriptor, written = new_part(self._folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(blob).digest() + blob)
            written.replace(self._path)
        except OSError as error:
            if written is not None:
                written.unlink(missing_ok=True)
            raise OutputError(
                f"cache folder {self._folder} cannot be written: {error.strerror or error}",
                hint="give ghostdeploy.load a cache folder that this user may write to, or none",
            ) from error
        return True

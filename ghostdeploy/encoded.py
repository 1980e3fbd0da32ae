"""Images that lie encoded inside another file: a member of an archive, a cell of a table.

An image set holds them as it holds paths: small, and read when they are decoded, so that a set of any size costs no
memory. They can be sent to another process, which reads the same file.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostdeploy.files import open_regular


class EncodedImage(ABC):
    """One image."""

    name: str
    """What it is called in its file; never the name of a file of the system."""

    @abstractmethod
    def read(self) -> bytes:
        """Returns its bytes.

        Raises:
            OSError: The file is not readable, or has changed.
        """


@dataclass(frozen=True, slots=True)
class Slice(EncodedImage):
    """Bytes of a file, as the members of an uncompressed archive."""

    path: Path
    name: str
    start: int
    length: int

    def read(self) -> bytes:
        """See `EncodedImage.read`."""
        with open_regular(self.path) as stream:
            stream.seek(self.start)
            data = stream.read(self.length)
        if len(data) != self.length:
            raise OSError(f"{self.path} ends inside {self.name}: it has changed since it was opened")
        return data


def source_of(image: Any) -> Any:
    """Returns what `decode` takes: of an encoded image its bytes, of anything else itself.

    Raises:
        OSError: See `EncodedImage.read`.
    """
    return image.read() if isinstance(image, EncodedImage) else image


def name_of(image: Any) -> str | None:
    """Returns what an image is called; None for an array."""
    if isinstance(image, EncodedImage):
        return image.name
    return Path(image).name if isinstance(image, str | Path) else None


def content_digest(image: Any) -> bytes:
    """Returns the SHA-256 of an image as it is stored: of its bytes, or of form and values of an array.

    Raises:
        OSError: It is not readable.
    """
    if isinstance(image, str | Path):
        with Path(image).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest() if hasattr(hashlib, "file_digest") else _read(stream)
    if isinstance(image, EncodedImage):
        return hashlib.sha256(image.read()).digest()
    return hashlib.sha256(f"{image.dtype.str}{image.shape}".encode() + image.tobytes()).digest()


def _read(stream: Any) -> bytes:
    """Python 3.10 has no `file_digest`."""
    return hashlib.sha256(stream.read()).digest()

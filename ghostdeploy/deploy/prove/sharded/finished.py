"""Pieces that are done, kept on disk until the whole evaluation is: a run that was killed goes on from there.

    folder/<key>-<first>-<last>.piece      SHA-256, then JSON; appears whole or not at all

The key is SHA-256 over all that a piece depends on: digest of the bundle, fingerprint of the set, cut, engine and
processor, version of ghostdeploy. Pieces of anything else are never read, and a damaged one counts as absent: it is
done again.
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.cached import keep_checked, open_checked, own_files
from ghostdeploy.errors import OutputError
from ghostdeploy.files import write_failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LARGEST = 1 << 30
"""Bytes of a piece."""
_log = logging.getLogger("ghostdeploy")


class Piece(msgspec.Struct, frozen=True):
    """What a piece gave."""

    device: str
    """Processor and engine that it ran on."""
    partials: list[Any]
    """By image."""


class Finished:
    """The folder of pieces that are done.

    Args:
        folder: Made when absent.
        parts: All that a piece depends on.
    """

    def __init__(self, folder: Path, parts: Sequence[str]) -> None:
        self.folder = folder
        self._key = hashlib.sha256(msgspec.json.encode(list(parts))).hexdigest()[:24]

    def read(self, pieces: Sequence[range]) -> dict[range, Piece]:
        """Returns those of some pieces that are there."""
        found = {}
        for piece in pieces:
            if not (self.folder / self._name(piece)).exists():
                continue
            if (one := self._read(piece)) is None:
                _log.warning("%s is damaged: its images are evaluated again", self.folder / self._name(piece))
            else:
                found[piece] = one
        return found

    def keep(self, piece: range, found: Piece) -> None:
        """Writes a piece.

        Raises:
            OutputError: The folder cannot be written, or others may write there.
        """
        try:
            kept = keep_checked(self.folder, self._name(piece), [msgspec.json.encode(found)], _LARGEST)
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot be written: {write_failure(error)}", hint="choose another folder with --state"
            ) from error
        if not kept:
            raise OutputError(f"{self.folder} is not yours alone to write", hint="choose another folder with --state")

    def clear(self) -> None:
        """Removes the pieces of this key, and the folder if nothing else is in it."""
        if not self.folder.is_dir():
            return
        for path, _ in own_files(self.folder, re.compile(rf"{self._key}-\d+-\d+\.piece")):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _read(self, piece: range) -> Piece | None:
        with open_checked(self.folder, self._name(piece), _LARGEST) as stream:
            if stream is None:
                return None
            try:
                found = msgspec.json.decode(stream.read(), type=Piece)
            except msgspec.DecodeError:
                return None
        return found if len(found.partials) == len(piece) else None

    def _name(self, piece: range) -> str:
        return f"{self._key}-{piece.start}-{piece.stop - 1}.piece"

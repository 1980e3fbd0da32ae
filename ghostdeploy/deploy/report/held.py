"""Live diagnoses in files: what `diagnose --json` printed, of one device or of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove.layerwise.records import SCHEMA, Live
from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

MARK = b'"diagnosis"'
"""In the first bytes of every such file."""


class Held(Record, frozen=True, kw_only=True):
    """A bundle, run and held against a reference, as a file says."""

    file: str
    """From the folder of the report."""
    number: int
    """Place in that file."""
    live: Live


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What a report reads of a diagnosis; what else is in it stays there."""

    diagnosis: int = 0
    """Schema; 0 for an entry that is an error."""
    bundle: str = ""
    digest: str | None = None
    live: Live | None = None


def read(path: Path) -> tuple[Document, ...]:
    """Returns the diagnoses of a file, in its order.

    Raises:
        BundleError: It is damaged, or of another schema.
    """
    try:
        data = path.read_bytes()
        entries = msgspec.json.decode(data, type=Document | list[Document])
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is no diagnosis: {error}", hint="write it again: diagnose BUNDLE --json") from error
    found = tuple(entries) if isinstance(entries, list) else (entries,)
    other = [one.diagnosis for one in found if one.diagnosis not in (0, SCHEMA)]
    if other:
        raise BundleError(f"{path} has schema {other[0]}, expected {SCHEMA}", hint="write it again")
    return found


def is_held(path: Path) -> bool:
    """Returns whether a file looks like diagnoses."""
    try:
        with path.open("rb") as stream:
            return MARK in stream.read(64)
    except OSError:
        return False

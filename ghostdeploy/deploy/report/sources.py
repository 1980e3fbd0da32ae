"""Which bundles, receipts and diagnoses a report is about: what was named, and what lies in folders that were named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.arguments import require_paths
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.deploy.report import held
from ghostdeploy.device import receipt as receipts
from ghostdeploy.errors import BundleError
from ghostdeploy.files import is_there

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.prove.layerwise.records import Live
    from ghostdeploy.device.receipt import Receipt

_DEPTH = 3
"""Folders below one that was named; links are not followed."""
_MARK = b'"receipts"'
"""In the first bytes of every file of receipts."""


@dataclass(frozen=True, slots=True)
class Proven:
    """One receipt of a file."""

    file: Path
    number: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Looked:
    """One live diagnosis of a file."""

    file: Path
    number: int
    digest: str | None
    live: Live


@dataclass(frozen=True, slots=True)
class Sources:
    """What was found, each once, in the order of the arguments."""

    bundles: tuple[Bundle, ...]
    proven: tuple[Proven, ...]
    looked: tuple[Looked, ...]


class _Files:
    """What was found in files so far."""

    def __init__(self) -> None:
        self.bundles: dict[Path, Bundle] = {}
        self.receipts: dict[Path, tuple[Receipt, ...]] = {}
        self.diagnoses: dict[Path, tuple[held.Document, ...]] = {}

    def __len__(self) -> int:
        return len(self.bundles) + len(self.receipts) + len(self.diagnoses)

    def add(self, path: Path) -> None:
        """Adds a bundle, a file of receipts, or one of diagnoses."""
        place = path.resolve()
        if path.is_dir():
            self.bundles.setdefault(place, bundles.open_bundle(path))
        elif held.is_held(path):
            self.diagnoses.setdefault(place, held.read(path))
        else:
            self.receipts.setdefault(place, receipts.read(path))


def find(paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> Sources:
    """Opens bundles, checks their hashes, and reads receipts.

    Args:
        paths: Bundles, receipts, diagnoses, and folders of them. The bundle of a receipt is looked for among them, else
            where the receipt says that it was, else beside the receipt; likewise that of a diagnosis.

    Raises:
        BundleError: A folder without any, one that is damaged, a receipt or diagnosis of another bundle.
        UsageError: No path.
    """
    found = _Files()
    for given in require_paths("bundle, receipt or folder", paths):
        path = Path(given)
        if receipts.is_receipt(path) or held.is_held(path):
            found.add(path)
        elif is_there(path / bundles.MANIFEST) or not path.is_dir():
            found.bundles.setdefault(path.resolve(), bundles.open_bundle(path))
        else:
            _take(path, found)
    proven = [Proven(file, number, one) for file, some in found.receipts.items() for number, one in enumerate(some)]
    for one in proven:
        mark = one.receipt.bundle
        _require_bundle(one.file, Path(mark.path), mark.digest, mark.name, found.bundles)
    looked = []
    for file, documents in found.diagnoses.items():
        for number, document in enumerate(documents):
            if document.live is not None:
                named = Path(document.bundle)
                _require_bundle(file, named, document.digest, named.name, found.bundles)
                looked.append(Looked(file, number, document.digest, document.live))
    return Sources(tuple(found.bundles.values()), tuple(proven), tuple(looked))


def _take(folder: Path, found: _Files) -> None:
    """Adds what a folder holds."""
    before = len(found)
    for path in _inside(folder, _DEPTH):
        found.add(path)
    if len(found) == before:
        raise BundleError(
            f"{folder} holds no bundle and no receipt, expected folders that export wrote",
            hint=f"make one with: ghostdeploy export -t TARGET --out {folder}",
        )


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    """Yields bundles, receipts and diagnoses below a folder; what is inside a bundle or hidden is none."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error.strerror}") from error
    for path in (folder / name for name in names if not name.startswith(".")):
        if path.is_symlink():
            continue
        if path.is_dir():
            if is_there(path / bundles.MANIFEST):
                yield path
            elif depth > 1:
                yield from _inside(path, depth - 1)
        elif path.suffix == ".json" and (_looks_like_receipts(path) or held.is_held(path)):
            yield path


def _looks_like_receipts(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return _MARK in stream.read(64)
    except OSError:
        return False


def _require_bundle(file: Path, named: Path, digest: str | None, name: str, found: dict[Path, Bundle]) -> None:
    """Finds the bundle of a receipt or diagnosis, and adds it where it was not given.

    Raises:
        BundleError: There is none with its digest.
    """
    if any(bundle.manifest.digest == digest for bundle in found.values()):
        return
    for place in (named, file.parent / named, file.parent / named.name):
        if is_there(place / bundles.MANIFEST):
            bundle = bundles.open_bundle(place)
            if bundle.manifest.digest == digest:
                found.setdefault(place.resolve(), bundle)
                return
    names = ", ".join(bundle.manifest.name for bundle in found.values()) or "none was found"
    which = "without a digest" if digest is None else f"of digest {digest[:12]}…"
    again = f"ghostdeploy verify BUNDLE --receipt {file.name}"
    if held.is_held(file):
        again = f"ghostdeploy diagnose BUNDLE --json > {file.name}"
    raise BundleError(
        f"{file} is about a bundle {name} {which}, which is not among those given: {names}",
        hint=f"give that bundle too, or prove this one: {again}",
    )

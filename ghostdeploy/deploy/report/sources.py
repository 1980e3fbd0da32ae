"""Which bundles and receipts a report is about: what was named, and what lies in folders that were named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.arguments import require_paths
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.device import receipt as receipts
from ghostdeploy.errors import BundleError
from ghostdeploy.files import is_there

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from ghostdeploy.bundle.folder import Bundle
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
class Sources:
    """What was found, each once, in the order of the arguments."""

    bundles: tuple[Bundle, ...]
    proven: tuple[Proven, ...]


def find(paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> Sources:
    """Opens bundles, checks their hashes, and reads receipts.

    Args:
        paths: Bundles, receipts, and folders of them. The bundle of a receipt is looked for among them, else where the
            receipt says that it was, else beside the receipt.

    Raises:
        BundleError: A folder without bundles and receipts, a damaged bundle or receipt, a receipt of another bundle.
        UsageError: No path.
    """
    found: dict[Path, Bundle] = {}
    files: dict[Path, tuple[Receipt, ...]] = {}
    for given in require_paths("bundle, receipt or folder", paths):
        path = Path(given)
        if receipts.is_receipt(path):
            files.setdefault(path.resolve(), receipts.read(path))
        elif is_there(path / bundles.MANIFEST) or not path.is_dir():
            found.setdefault(path.resolve(), bundles.open_bundle(path))
        else:
            _take(path, found, files)
    proven = [Proven(file, number, one) for file, some in files.items() for number, one in enumerate(some)]
    for one in proven:
        _require_bundle(one, found)
    return Sources(tuple(found.values()), tuple(proven))


def _take(folder: Path, found: dict[Path, Bundle], files: dict[Path, tuple[Receipt, ...]]) -> None:
    """Adds what a folder holds."""
    before = len(found) + len(files)
    for path in _inside(folder, _DEPTH):
        if path.is_dir():
            found.setdefault(path.resolve(), bundles.open_bundle(path))
        else:
            files.setdefault(path.resolve(), receipts.read(path))
    if len(found) + len(files) == before:
        raise BundleError(
            f"{folder} holds no bundle and no receipt, expected folders that export wrote",
            hint=f"make one with: ghostdeploy export -t TARGET --out {folder}",
        )


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    """Yields bundles and receipts below a folder; what is inside a bundle or hidden is none."""
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
        elif path.suffix == ".json" and _looks_like_receipts(path):
            yield path


def _looks_like_receipts(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return _MARK in stream.read(64)
    except OSError:
        return False


def _require_bundle(one: Proven, found: dict[Path, Bundle]) -> None:
    """Finds the bundle of a receipt, and adds it where it was not given.

    Raises:
        BundleError: There is none with its digest.
    """
    mark = one.receipt.bundle
    if any(bundle.manifest.digest == mark.digest for bundle in found.values()):
        return
    named = Path(mark.path)
    for place in (named, one.file.parent / named, one.file.parent / named.name):
        if is_there(place / bundles.MANIFEST):
            bundle = bundles.open_bundle(place)
            if bundle.manifest.digest == mark.digest:
                found.setdefault(place.resolve(), bundle)
                return
    names = ", ".join(bundle.manifest.name for bundle in found.values()) or "none was found"
    digest = "without a digest" if mark.digest is None else f"of digest {mark.digest[:12]}…"
    raise BundleError(
        f"{one.file} is about a bundle {mark.name} {digest}, which is not among those given: {names}",
        hint=f"give that bundle too, or prove this one: ghostdeploy verify BUNDLE --receipt {one.file.name}",
    )

"""Walking a folder of images: what is read, which class it belongs to, and what is left out and why.

    root/class/image.jpg, root/class/any/depth/image.jpg    one class per folder of the root
    root/image.jpg                                          no classes

Sub-folders of a class belong to it, as for torchvision and timm. Names that start with a dot and the metadata folders
of file systems hold no images. Links are followed, but an image is read once: in its own folder if that belongs to the
set, else at the first link to it. A second link would put it into another class too. Skipped files are counted with
their reason: an accuracy on nine classes must not be reported as one on ten.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ghostdeploy.bundle.manifest import LeftOut
from ghostdeploy.preprocess import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

METADATA = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that archives, network drives and file systems add."""
EXAMPLES = 3
"""Names that are given of what was left out."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds."""

    files: list[Path]
    classes: tuple[str, ...] | None
    """Folder names in class order: by number where all are numbers, else sorted; None without class folders."""
    labels: list[int] | None
    """Class index of each file."""
    left_out: tuple[LeftOut, ...]


def list_folder(root: Path, *, labelled: bool) -> Listing:
    """Lists the images of a folder.

    Args:
        root: The folder.
        labelled: Classes are needed: images outside the class folders are left out. Else they are read, and a folder
            that has both has no classes.

    Raises:
        OSError: A folder is not readable.
    """
    walk = _Walk(root)
    folders, loose = walk.split(root, ())
    found = [(name, [file for one in group for file in walk.images(one)]) for name, group in by_class(folders)]
    own = walk.own([*(() if labelled else loose), *(file for _, files in found for file in files)])
    classes = [(name, walk.once(files, own)) for name, files in found]
    loose = walk.once(loose, own)
    if not any(files for _, files in classes):
        return Listing(loose, None, None, walk.left_out())
    if loose and not labelled:
        return Listing([*loose, *(file for _, files in classes for file in files)], None, None, walk.left_out())
    for file in loose:
        walk.leave("images outside the class folders", file)
    labels = [index for index, (_, files) in enumerate(classes) for _ in files]
    names = tuple(name for name, _ in classes)
    return Listing([file for _, files in classes for file in files], names, labels, walk.left_out())


def by_class(folders: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """Returns the folders of each class in class order; two normal forms of one name are one class."""
    named = [(unicodedata.normalize("NFC", folder.name), folder) for folder in folders]
    numbers = {name: int(name) for name, _ in named if name.isdecimal()}
    numbered = len(numbers) == len({name for name, _ in named}) == len(set(numbers.values()))
    named.sort(key=lambda one: (numbers[one[0]] if numbered else 0, one))
    return [(name, [folder for _, folder in group]) for name, group in groupby(named, key=lambda one: one[0])]


def counted(left_out: Sequence[LeftOut]) -> str:
    """Returns what was left out, for messages."""
    return "; ".join(
        f"{one.count} {one.reason} ({', '.join(one.examples)}{', …' * (one.count > len(one.examples))})"
        for one in left_out
    )


class _Walk:
    """Collects images, and what is left out on the way."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real = root.resolve()
        self._linked: dict[Path, Path] = {}
        """Where images reached by links are."""
        self._reached: set[Path | None] = set()
        """Those of them that are read."""
        self._left: dict[str, list[Path]] = {}

    def leave(self, reason: str, path: Path) -> None:
        """Counts something that is not read."""
        self._left.setdefault(reason, []).append(path)

    def left_out(self) -> tuple[LeftOut, ...]:
        """Returns what was counted."""
        return tuple(
            LeftOut(
                reason=reason,
                count=len(paths),
                examples=tuple(str(path.relative_to(self._root)) for path in paths[:EXAMPLES]),
            )
            for reason, paths in self._left.items()
        )

    def split(self, folder: Path, above: tuple[Path, ...]) -> tuple[list[Path], list[Path]]:
        """Returns the sub-folders that may hold images, and the images of one folder, both in sorted order.

        Args:
            folder: The folder.
            above: Real paths of the folders on the way from the set to this one, itself included.
        """
        folders: list[Path] = []
        files: list[Path] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path, is_folder = folder / entry.name, _is(entry.is_dir)
                if entry.name.startswith("."):
                    self.leave("names that start with a dot", path)
                elif is_folder and entry.name in METADATA:
                    self.leave("metadata folders", path)
                elif is_folder and entry.is_symlink() and _is_above(path.resolve(), (self._real, *above)):
                    self.leave("links to a parent folder", path)
                elif is_folder:
                    folders.append(path)
                elif not _is(entry.is_file):
                    self.leave("special files", path)
                elif path.suffix.lower() in IMAGE_SUFFIXES:
                    files.append(path)
                    self._locate(path, path.resolve() if entry.is_symlink() else (*above, self._real)[0] / entry.name)
                else:
                    self.leave(f"files ending in {path.suffix}" if path.suffix else "files without a suffix", path)
        return folders, files

    def images(self, folder: Path) -> Iterator[Path]:
        """Yields the images of a folder and its sub-folders."""
        waiting: list[tuple[Path, tuple[Path, ...]]] = [(folder, (folder.resolve(),))]
        while waiting:
            folder, above = waiting.pop()
            folders, files = self.split(folder, above)
            yield from files
            inside = [(one, one.resolve() if one.is_symlink() else above[0] / one.name) for one in reversed(folders)]
            waiting += [(one, (real, *above)) for one, real in inside]

    def own(self, files: Iterable[Path]) -> set[Path]:
        """Returns the real paths of the images in the set itself; empty where no link was met."""
        if not self._linked:
            return set()
        return {self._real / file.relative_to(self._root) for file in files if file not in self._linked}

    def once(self, files: list[Path], own: set[Path]) -> list[Path]:
        """Returns the images without those that are links to others of the set, or to what a link before leads to."""
        kept = []
        for file in files:
            real = self._linked.get(file)
            if real in own:
                self.leave("links to images of the set", file)
            elif real in self._reached:
                self.leave("repeated links to one image", file)
            else:
                kept.append(file)
                self._reached |= {real} - {None}
        return kept

    def _locate(self, path: Path, real: Path) -> None:
        if real != self._real / path.relative_to(self._root):
            self._linked[path] = real


def _is(kind: Callable[[], bool]) -> bool:
    """Returns the kind of a directory entry; False for a link that leads to itself."""
    try:
        return kind()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _is_above(real: Path, folders: Iterable[Path]) -> bool:
    """Returns whether a folder is one of others, or holds one."""
    return any(one.is_relative_to(real) for one in folders)

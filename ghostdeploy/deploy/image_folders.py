"""Walking a folder of images: what is read, which class it belongs to, and what is left out and why.

    root/class/image.jpg, root/class/any/depth/image.jpg    one class per folder of the root
    root/image.jpg                                          no classes

Sub-folders of a class belong to it, as for torchvision and timm. Names that start with a dot and the metadata folders
of file systems hold no images. Whatever is not read is counted with its reason: an accuracy of nine classes must not be
sold as that of ten.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ghostdeploy.manifest import LeftOut
from ghostdeploy.preprocess import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
        labelled: Classes are needed: images beside the class folders are left out. Else they are read, and a folder
            that has both has no classes.

    Raises:
        PermissionError: A folder is not readable.
    """
    walk = _Walk(root)
    folders, loose = walk.split(root)
    classes = [(name, [file for one in group for file in walk.images(one)]) for name, group in by_class(folders)]
    if not any(files for _, files in classes):
        return Listing(loose, None, None, walk.left_out())
    if loose and not labelled:
        return Listing([*loose, *(file for _, files in classes for file in files)], None, None, walk.left_out())
    for file in loose:
        walk.leave("images beside the class folders", file)
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

    def split(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Returns the sub-folders that may hold images, and the images of one folder, both in sorted order."""
        folders: list[Path] = []
        files: list[Path] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                if entry.name.startswith("."):
                    self.leave("names that start with a dot", path)
                elif entry.is_dir():
                    folders.append(path)
                elif not entry.is_file():
                    self.leave("no regular files", path)
                elif path.suffix.lower() in IMAGE_SUFFIXES:
                    files.append(path)
                else:
                    self.leave(f"files ending in {path.suffix}" if path.suffix else "files without a suffix", path)
        for path in [path for path in folders if path.name in METADATA]:
            self.leave("metadata folders", path)
            folders.remove(path)
        return folders, files

    def images(self, folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
        """Yields the images of a folder and its sub-folders; a link back to a folder above is left out."""
        real = folder.resolve()
        if real in above:
            self.leave("links to a folder above", folder)
            return
        folders, files = self.split(folder)
        yield from files
        for one in folders:
            yield from self.images(one, (*above, real))

"""What readers of labelled sets share: files of bounded size, and images that stay inside the set's folder."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from ghostdeploy.arguments import require_path
from ghostdeploy.arrays import read_arrays
from ghostdeploy.decode import upright_size
from ghostdeploy.errors import DataError, InputError
from ghostdeploy.files import is_relative_name, is_there, read_limited
from ghostdeploy.preprocess import IMAGE_SUFFIXES
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Sizes = NDArray[np.int64]

T = TypeVar("T")

LARGEST = 1 << 29
"""Bytes of a JSON or CSV file; COCO's largest has 449 MiB."""


def is_npz(path: str | os.PathLike[str]) -> bool:
    """Tells whether a set is one `.npz` file."""
    return require_path("the labelled set", path).suffix == ".npz"


def index_file(path: str | os.PathLike[str], suffix: str, folders: Sequence[str] = ()) -> Path:
    """Returns the file that lists a set: the path itself, or the only one with this suffix in the folder.

    Args:
        path: A file, or a folder.
        suffix: Such as `.json`.
        folders: Sub-folders that are searched too.

    Raises:
        DataError: It does not exist, or the folder has none or several.
    """
    root = require_path("the labelled set", path)
    if not root.exists():
        raise DataError(f"labelled set {root} does not exist")
    if not root.is_dir():
        return root
    found = [
        file for folder in (root, *(root / name for name in folders)) for file in sorted(folder.glob(f"*{suffix}"))
    ]
    if len(found) != 1:
        names = f"{len(found)} files" if found else "no file"
        raise DataError(
            f"{root} has {names} that end in {suffix}, expected one", hint="give the path of the file itself"
        )
    return found[0]


def read_json(path: Path, kind: type[T], what: str) -> T:
    """Reads a JSON file.

    Args:
        path: The file.
        kind: What it must hold.
        what: The same in words.

    Raises:
        DataError: It is unreadable, too large, damaged, or holds something else.
    """
    try:
        return msgspec.json.decode(_content(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # a validation error is a DecodeError
        raise DataError(f"{path} is not {what}: {str(error).replace('`', '')}") from error


def read_lines(path: Path, kind: type[T], what: str) -> list[T]:
    """Reads a file of JSON lines; empty ones do not count.

    Args:
        path: The file.
        kind: What each line must hold.
        what: The same in words.

    Raises:
        DataError: It is unreadable, too large, or a line is damaged or holds something else.
    """
    decoder, found = msgspec.json.Decoder(kind), []
    for number, line in enumerate(_content(path).splitlines(), 1):
        try:
            found += [decoder.decode(line)] if line.strip() else []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"line {number} of {path} is not {what}: {str(error).replace('`', '')}") from error
    return found


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads a CSV file with a header.

    Args:
        path: The file.
        columns: Names that the header must have.

    Raises:
        DataError: It is unreadable, too large, no text, has another header, or a row has more or fewer cells.
    """
    try:
        text = _content(path).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        given = reader.fieldnames or []
        if absent := [name for name in columns if name not in given]:
            raise DataError(
                f"{path} has columns {', '.join(given) or 'none'}, expected {', '.join(columns)}; {absent[0]} is absent"
            )
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file: {error}") from error
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise DataError(f"row {number} of {path} has not the {len(given)} cells of its header")
    return rows


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Reads an `.npz` file; `images` in it must be uint8 (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels.

    Args:
        path: The file.
        names: Arrays that it must have.

    Raises:
        DataError: It is unreadable or damaged, or an array is absent, or there is no image.
    """
    try:
        arrays: dict[str, NDArray[Any]] = dict(read_arrays(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from error
    if absent := [name for name in names if name not in arrays]:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}, expected {', '.join(names)}; {absent[0]} is absent"
        )
    images = arrays["images"]
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))):
        raise DataError(f"images of {path} are {images.dtype} {images.shape}, expected uint8 (N, H, W, 3)")
    if not images.size:
        raise DataError(f"{path} holds no images")
    return arrays


def images_named(names: Iterable[str], folders: Sequence[Path], source: Path) -> list[Path]:
    """Returns the files that a list names, all in the first folder that has the first of them.

    Args:
        names: Relative to the folder.
        folders: Where they may be.
        source: The list, for messages.

    Raises:
        DataError: There is no name, a name leaves the folder, or a file is absent.
    """
    every = list(names)
    if not every:
        raise DataError(f"{source} names no images")
    if outside := [name for name in every if not is_relative_name(name)]:
        raise DataError(f"{source} names {outside[0]!r}, expected a path inside the folder of the images")
    folder = next((one for one in folders if is_there(one / every[0])), folders[0])
    paths = [folder / name for name in every]
    if absent := [path for path in paths if not os.path.isfile(path)]:  # noqa: PTH113 - raises of no name
        raise DataError(
            f"{len(absent)} of {len(paths)} images that {source} names are not in {folder}, such as "
            f"{visible_line(absent[0].name)}",
            hint="put the images beside the file",
        )
    return paths


def images_in(folder: Path) -> dict[str, Path]:
    """Returns the images below a folder by their path without a suffix, sorted.

    Raises:
        DataError: Two images differ in their suffix only.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise DataError(f"{found[name]} and {path} have one name, expected one image of each")
            found[name] = path
    return found


def sizes_of(images: Sequence[Any]) -> Sizes:
    """Returns height and width of each upright image, (N, 2), from headers.

    Args:
        images: Paths, or arrays (H, W, …).

    Raises:
        DataError: A file is no image.
    """
    try:
        sizes = [upright_size(one) if isinstance(one, Path) else one.shape[:2] for one in images]
    except InputError as error:
        raise DataError(error.message, hint=error.hint) from error
    return np.array(sizes, np.int64).reshape(-1, 2)


def _content(path: Path) -> bytes:
    try:
        return read_limited(path.resolve(), LARGEST)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error

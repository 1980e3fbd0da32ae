"""What an image set is stored in, and its reader.

folder of images, folder per class       image_folders
folder with a table of labels            image_metadata
.tar, or a folder of them                image_tar
.parquet, or a folder of them            image_parquet
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove import image_parquet, image_tar
from ghostdeploy.deploy.prove.image_folders import list_folder
from ghostdeploy.deploy.prove.image_metadata import TABLES, list_metadata, table_of
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.deploy.prove.image_folders import Listing


def stored_as(root: Path) -> str | None:
    """Returns what holds class labels only, for messages: an archive, a table; None for anything else.

    Args:
        root: The path of a labelled set, which need not exist.
    """
    try:
        if root.is_dir():
            return _folder_of(root)
    except OSError:  # its reader has the sentence for it
        return None
    kinds = {image_tar.SUFFIX: "a WebDataset archive", image_parquet.SUFFIX: "a Parquet table"}
    return kinds.get(root.suffix.lower())


def _folder_of(root: Path) -> str | None:
    if any((root / name).exists() for name in TABLES):
        return "an imagefolder with a table of class labels"
    if _files(root, image_parquet.SUFFIX):
        return "a folder of Parquet tables"
    return "a folder of WebDataset archives" if _files(root, image_tar.SUFFIX) else None


def list_images(root: Path, *, labelled: bool) -> Listing:
    """Lists the images of a set that is no `.npz`.

    Args:
        root: A folder, an archive or a table.
        labelled: Labels are needed.

    Raises:
        DataError: It does not exist, is none of these, or is damaged.
        MissingDependency: The library that reads it is not installed.
        OSError: It is not readable.
    """
    name = root.name.lower()
    if root.is_dir():
        return _of_folder(root, labelled=labelled)
    if not root.exists():
        raise DataError(f"image set {root} does not exist")
    if name.endswith(image_tar.PACKED):
        raise DataError(
            f"{root} is a compressed archive, expected a plain .tar",
            hint="decompress it: images are compressed already",
        )
    if name.endswith(image_tar.SUFFIX):
        return image_tar.list_tar([root], str(root), labelled=labelled)
    if name.endswith(image_parquet.SUFFIX):
        return image_parquet.list_parquet([root], str(root), labelled=labelled)
    raise DataError(f"{root} is neither a folder nor an .npz, .tar or .parquet file")


def _of_folder(root: Path, *, labelled: bool) -> Listing:
    """Lists a folder by what is in it."""
    if (table := table_of(root)) is not None:
        return list_metadata(table, labelled=labelled)
    if tables := _files(root, image_parquet.SUFFIX):
        return image_parquet.list_parquet(image_parquet.one_split(tables, root), str(root), labelled=labelled)
    if archives := _files(root, image_tar.SUFFIX):
        return image_tar.list_tar(archives, str(root), labelled=labelled)
    return list_folder(root, labelled=labelled)


def _files(root: Path, suffix: str) -> list[Path]:
    """Returns the files with a suffix in a folder, or in its `data`, as Hugging Face names it; none beside images."""
    for folder in (root, root / "data"):
        found = sorted(one for one in folder.glob(f"*{suffix}") if one.is_file() and not one.name.startswith("."))
        if found:
            beside = any(one.suffix.lower() in IMAGE_SUFFIXES for one in folder.iterdir())
            return [] if beside else found
    return []

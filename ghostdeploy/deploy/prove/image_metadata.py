"""Hugging Face's `imagefolder` on disk: images, and one table of their labels.

    root/metadata.csv        file_name,label
    root/metadata.jsonl      {"file_name": "more/a.jpg", "label": "cat"}
    root/metadata.parquet    the same columns

Names are relative to the table and stay inside its folder; a label is a class index or a name. Images beside the table
that it does not name are left out. Source: the layout of github.com/huggingface/datasets, builder `imagefolder`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.deploy.prove.image_labels import listing
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import IMAGE_SUFFIXES
from ghostdeploy.tasks.labelled import images_named, read_csv, read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.deploy.prove.image_folders import Listing

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NAME, LABELS = "file_name", ("label", "labels")


class _Row(msgspec.Struct):
    file_name: str
    label: int | str | None = None
    labels: int | str | None = None


def table_of(root: Path) -> Path | None:
    """Returns the table of a folder; None where it has none.

    Raises:
        DataError: It has several.
    """
    found = [root / name for name in TABLES if (root / name).exists()]
    if len(found) > 1:
        raise DataError(f"{root} has {' and '.join(path.name for path in found)}, expected one of them")
    return found[0] if found else None


def list_metadata(table: Path, *, labelled: bool) -> Listing:
    """Lists the images that a table names.

    Args:
        table: One of `TABLES`.
        labelled: Labels are needed.

    Raises:
        DataError: It is damaged, names what is absent or outside of its folder, names one image twice or what is no
            image, or has no column of labels where they are needed.
    """
    names, labels = _columns(table, labelled=labelled)
    if odd := [name for name in names if Path(name).suffix.lower() not in IMAGE_SUFFIXES]:
        raise DataError(
            f"{table} names {odd[0]!r}, expected image files", hint=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{table} names {twice!r} twice")
    images = images_named(names, (table.parent,), table)
    return listing(images, labels, names=names, source=str(table), labelled=labelled)


def _columns(table: Path, *, labelled: bool) -> tuple[list[str], Sequence[int | str | None]]:
    """Returns the file names and labels."""
    if table.suffix == ".csv":
        rows: list[Any] = read_csv(table, (NAME,))
        column = next((name for name in LABELS if rows and name in rows[0]), None)
        _require(table, labelled and column is None)
        labels = [None if column is None or row[column] == "" else _number(row[column]) for row in rows]
        return [row[NAME] for row in rows], labels
    if table.suffix == ".parquet":
        from ghostdeploy.deploy.prove.image_parquet import table_columns

        names, found = table_columns(table, NAME, LABELS)
        _require(table, labelled and found is None)
        return names, [None] * len(names) if found is None else found
    lines = read_lines(table, _Row, "a line with file_name and label")
    given = [one.label if one.label is not None else one.labels for one in lines]
    _require(table, labelled and all(label is None for label in given))
    return [one.file_name for one in lines], given


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def _require(table: Path, absent: Any) -> None:
    if absent:
        raise DataError(
            f"{table} has no column label, needed to measure accuracy",
            hint="add a column label: class indices or names",
        )

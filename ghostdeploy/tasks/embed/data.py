"""Labelled pairs: an `.npz`, or images with a CSV file.

pairs.csv    a,b,same            paths beside the file; same is 1, 0, true or false
             a,b,same,fold       with the folds that figures are published for
.npz         images uint8 (N, H, W, 3), pairs (P, 2) indices, same (P,), and fold (P,) where there are folds
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import DataError
from ghostdeploy.tasks.labelled import images_named, index_file, is_npz, read_csv, read_npz, sizes_of

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

_SAME = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """A set."""

    source: str
    """For messages."""
    images: tuple[Any, ...]
    """Each once: file paths, or uint8 arrays (H, W, …)."""
    sizes: NDArray[np.int64]
    """(N, 2) Height and width of each upright image."""
    pairs: NDArray[np.int64]
    """(P, 2) Indices of images."""
    same: NDArray[np.bool_]
    """(P,)"""
    fold: NDArray[np.int64] | None
    """(P,) From 0."""


def read_pairs(path: str | os.PathLike[str]) -> LabelledPairs:
    """Reads a set.

    Args:
        path: The `.npz` or CSV file, or the folder that has one CSV file.

    Raises:
        DataError: It is none of these, or has another form; there are fewer than two same or two other pairs, or one
            fold; or an image is absent or damaged.
    """
    found = _from_npz(Path(path)) if is_npz(path) else _from_csv(index_file(path, ".csv"))
    same = int(found.same.sum())
    if min(same, len(found.same) - same) < 2:
        raise DataError(
            f"{found.source} has {same} same and {len(found.same) - same} other pairs, expected two of each at least"
        )
    if found.fold is not None and not found.fold.any():
        raise DataError(f"all pairs of {found.source} are in one fold, expected two folds at least")
    return found


def _from_csv(file: Path) -> LabelledPairs:
    rows = read_csv(file, ("a", "b", "same"))
    for number, row in enumerate(rows, 2):
        if row["same"].strip().lower() not in _SAME:
            raise DataError(f"row {number} of {file} has same {row['same']!r}, expected 1, 0, true or false")
    names = dict.fromkeys(row[side] for row in rows for side in ("a", "b"))
    images = images_named(names, (file.parent, file.parent / "images"), file)
    index = {name: place for place, name in enumerate(names)}
    fold = [row["fold"] for row in rows] if rows and "fold" in rows[0] else None
    return LabelledPairs(
        str(file),
        tuple(images),
        sizes_of(images),
        np.array([[index[row["a"]], index[row["b"]]] for row in rows], np.int64),
        np.array([_SAME[row["same"].strip().lower()] for row in rows], bool),
        None if fold is None else _numbered(np.array(fold)),
    )


def _from_npz(file: Path) -> LabelledPairs:
    arrays = read_npz(file, ("images", "pairs", "same"))
    pairs, same = arrays["pairs"], arrays["same"]
    fold = arrays.get("fold")
    count = len(pairs) if pairs.ndim else 0
    for name, array, shape in (("pairs", pairs, (count, 2)), ("same", same, (count,)), ("fold", fold, (count,))):
        if array is not None and (array.shape != shape or (array.dtype.kind not in "iub" and name != "fold")):
            raise DataError(f"{name} of {file} are {array.dtype} {array.shape}, expected whole numbers {shape}")
    if count and not (pairs.min() >= 0 and pairs.max() < len(arrays["images"])):
        raise DataError(f"pairs of {file} are from {pairs.min()} to {pairs.max()}, expected indices of images")
    if count and not (same.min() >= 0 and same.max() <= 1):
        raise DataError(f"same of {file} is from {same.min()} to {same.max()}, expected 0 and 1")
    return LabelledPairs(
        str(file),
        tuple(arrays["images"]),
        sizes_of(tuple(arrays["images"])),
        pairs.astype(np.int64),
        same.astype(bool),
        None if fold is None else _numbered(fold),
    )


def _numbered(fold: NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(fold, return_inverse=True)[1].astype(np.int64)

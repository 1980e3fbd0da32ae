"""Labelled points: an `.npz` with `images` and `points`, or a folder of images with one JSON file.

points.json    {"a.jpg": [[x, y], …], "more/b.png": …}        K points each, in pixels of the upright image
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import DataError
from ghostdeploy.tasks.labelled import images_named, index_file, is_npz, read_json, read_npz, sizes_of

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LabelledPoints:
    """A set."""

    source: str
    """For messages."""
    images: tuple[Any, ...]
    """File paths, or uint8 arrays (H, W, …)."""
    sizes: NDArray[np.int64]
    """(N, 2) Height and width of each upright image."""
    points: NDArray[np.float64]
    """(N, K, 2) x and y in pixels of the image."""

    def require_points(self, count: int) -> None:
        """Refuses a set of other points than a model has.

        Raises:
            DataError: The number differs.
        """
        if self.points.shape[1] != count:
            raise DataError(f"{self.source} has {self.points.shape[1]} points, expected the {count} of the model")


def read_points(path: str | os.PathLike[str]) -> LabelledPoints:
    """Reads a set.

    Args:
        path: The `.npz` or JSON file, or the folder that has one JSON file.

    Raises:
        DataError: It is none of these, or empty; numbers of points differ; points are no numbers, or relative; or an
            image is absent or damaged.
    """
    if is_npz(path):
        file = Path(path)
        arrays = read_npz(file, ("images", "points"))
        images, points = tuple(arrays["images"]), _from_array(arrays["points"], len(arrays["images"]), file)
    else:
        file = index_file(path, ".json")
        table = read_json(file, dict[str, list[tuple[float, float]]], "a JSON file of points by image")
        images = tuple(images_named(table, (file.parent, file.parent / "images"), file))
        points = _from_table(table, file)
    sizes = sizes_of(images)
    if not np.isfinite(points).all():
        raise DataError(f"points of {file} are not finite")
    if sizes.min() > 2 and np.abs(points).max() <= 1:
        raise DataError(f"points of {file} are from {points.min():.3g} to {points.max():.3g}, expected pixels")
    return LabelledPoints(str(file), images, sizes, points)


def _from_array(points: NDArray[Any], count: int, file: Path) -> NDArray[np.float64]:
    flat = points.ndim == 2 and points.shape[1] % 2 == 0
    if (
        len(points) != count
        or not points.size
        or points.dtype.kind not in "iuf"
        or not (flat or points.shape[2:] == (2,))
    ):
        raise DataError(f"points of {file} are {points.dtype} {points.shape}, expected numbers ({count}, K, 2)")
    return points.astype(np.float64).reshape(count, -1, 2)


def _from_table(table: dict[str, list[tuple[float, float]]], file: Path) -> NDArray[np.float64]:
    count = len(next(iter(table.values())))
    if wrong := [name for name, points in table.items() if len(points) != count or not count]:
        raise DataError(f"{wrong[0]} has {len(table[wrong[0]])} points in {file}, expected {count or 'some'}")
    return np.array(list(table.values()), np.float64)

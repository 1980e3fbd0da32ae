"""Ready inputs on disk: a folder with one `.npy` (N, …) for each input, in their order; read in pieces like pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from ghostdeploy.batches import Several, arrays_of, as_batch
from ghostdeploy.preprocess import ORDERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch

_IMAGE = 4
"""Dimensions of an array (N, C, H, W)."""


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays by input into a new folder.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir()
    for place, (name, array) in enumerate(arrays.items()):
        np.save(folder / f"{place:03}-{quote(name, safe='')}.npy", array, allow_pickle=False)


def open_stored(path: Path) -> Batch:
    """Returns the arrays of a folder, or the one of a `.npy` file, mapped into memory."""
    if not path.is_dir():
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return found
    files = sorted(path.glob("*.npy"))
    return as_batch({unquote(one.stem[4:]): np.load(one, mmap_mode="r", allow_pickle=False) for one in files})


def in_layout(batch: Batch, layout: str) -> Batch:
    """Returns ready inputs in memory, those of four dimensions in a layout, from (N, C, H, W)."""
    moved = [_moved(array, layout) for array in arrays_of(batch)]
    return Several(dict(zip(batch.arrays, moved, strict=True))) if isinstance(batch, Several) else moved[0]


def _moved(array: NDArray[Any], layout: str) -> NDArray[Any]:
    turned = array.transpose(ORDERS[layout]) if layout == "nhwc" and array.ndim == _IMAGE else array
    return np.array(turned, order="C")

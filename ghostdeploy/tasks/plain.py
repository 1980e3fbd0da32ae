"""Arrays as plain data that JSON keeps bit for bit, so that what one process found another one can add up.

    array → {type: "<f4", shape: [2, 4], values: [0.1, …]} → the same array

JSON's decimal numbers hold a float64 exactly when they are written in its shortest form, and float32 and smaller floats
are float64 numbers. What JSON has no number for is text: "nan", "inf", "-inf".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_KINDS = "biuf"
_LARGEST = 8
"""Bytes of a number."""


def plain(array: NDArray[Any]) -> dict[str, Any]:
    """Returns an array of numbers, of any shape, as plain data."""
    kept = np.ascontiguousarray(array)
    values = kept.ravel().tolist()
    if kept.dtype.kind == "f":
        values = [value if math.isfinite(value) else str(value) for value in values]
    return {"type": kept.dtype.newbyteorder("<").str, "shape": list(array.shape), "values": values}


def parts_of(found: Any, names: Iterable[str]) -> list[Any]:
    """Returns the parts of a record of arrays, from outside, by name.

    Raises:
        ValueError: One is absent.
    """
    try:
        return [found[name] for name in names]
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected {', '.join(names)}") from error


def array_of(found: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Returns the array of plain data.

    Args:
        found: See `plain`; from outside.
        shape: What it must have; None is any length.

    Raises:
        ValueError: It is something else.
    """
    try:
        kind, had, values = np.dtype(found["type"]), tuple(found["shape"]), found["values"]
        if kind.kind not in _KINDS or kind.itemsize > _LARGEST:
            raise ValueError(f"numbers are {kind}")
        fits = len(had) == len(shape) and all(want in (None, have) for have, want in zip(had, shape, strict=True))
        if not fits or math.prod(had) != len(values):
            raise ValueError(f"an array has shape {had} and {len(values)} numbers, expected {shape}")
        numbers = [float(value) for value in values] if kind.kind == "f" else values
        return np.array(numbers, kind).reshape(had)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"an array is damaged: {error}") from error

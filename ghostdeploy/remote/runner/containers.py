"""Containers of arrays, which the runner reads and writes; `arrays.hpp` is the other side.

8 bytes  "GDARRAY1"        u32  number of arrays, then of each
u16 length, name in UTF-8  u8   type: 0 float32, 1 uint8     u8  rank, 1 to 5     u32 × rank  sizes
data in C order

All numbers are little-endian; the first size is the number of images.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ghostdeploy.bundle.folder import Arrays

MAGIC = b"GDARRAY1"
TYPES = ("<f4", "|u1")
MOST_DIMENSIONS = 5


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns a container.

    Args:
        arrays: By name; float32 or uint8, of one to five dimensions.

    Raises:
        ValueError: An array is of another kind.
    """
    parts = [MAGIC, struct.pack("<I", len(arrays))]
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<").str not in TYPES or not 1 <= array.ndim <= MOST_DIMENSIONS:
            raise ValueError(f"{name} is {array.dtype} of {array.ndim} dimensions, expected float32 or uint8 of 1 to 5")
        kind = 0 if array.dtype.kind == "f" else 1
        encoded = name.encode()
        parts.append(
            struct.pack(f"<H{len(encoded)}sBB{array.ndim}I", len(encoded), encoded, kind, array.ndim, *array.shape)
        )
        parts.append(np.ascontiguousarray(array, TYPES[kind]).tobytes())
    return b"".join(parts)


def unpack(data: bytes) -> Arrays:
    """Returns the arrays of a container.

    Raises:
        ValueError: It is none, damaged, or not whole.
    """
    place = 0

    def take(count: int) -> bytes:
        nonlocal place
        if count > len(data) - place:
            raise ValueError("it ends in the middle of an array")
        place += count
        return data[place - count : place]

    if take(len(MAGIC)) != MAGIC:
        raise ValueError("it is no container of arrays")
    (count,), found = struct.unpack("<I", take(4)), dict[str, np.ndarray]()
    for _ in range(count):
        (length,) = struct.unpack("<H", take(2))
        name = take(length).decode("utf-8")
        kind, rank = take(2)
        if kind >= len(TYPES) or not 1 <= rank <= MOST_DIMENSIONS or name in found:
            raise ValueError(f"array {name!r} is of unknown type or rank, or there twice")
        shape = struct.unpack(f"<{rank}I", take(4 * rank))
        found[name] = np.frombuffer(take(prod(shape) * np.dtype(TYPES[kind]).itemsize), TYPES[kind]).reshape(shape)
    if place < len(data):
        raise ValueError(f"{len(data) - place} bytes are behind its last array")
    return found

"""Reads tables of a flatbuffer by the places of their fields; no code is generated, no library is needed.

    vtable = p − i32[p]        field k is at p + u16[vtable + 4 + 2k], absent where that is 0 or beyond the vtable
    a table, text or vector    u32 at the field's place, relative to that place

Source: FlatBuffers, "Internals".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Table:
    """One table.

    Args:
        data: The buffer.
        place: Of the table in it.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        self._vtable = place - _read(data, "<i", place)
        self._size = _read(data, "<H", self._vtable)

    @classmethod
    def root(cls, data: bytes) -> Self:
        """Returns the root table of a buffer.

        Raises:
            ValueError: The buffer ends too early, as all methods do.
        """
        return cls(data, _read(data, "<I", 0))

    def number(self, field: int, kind: str = "<I", default: int = 0) -> int:
        """Returns a scalar; `kind` is that of `struct`."""
        place = self._at(field)
        return default if place is None else _read(self._data, kind, place)

    def table(self, field: int) -> Table | None:
        """Returns a table, None where there is none."""
        place = self._at(field)
        return None if place is None else Table(self._data, self._follow(place))

    def text(self, field: int) -> str:
        """Returns a text."""
        place = self._at(field)
        if place is None:
            return ""
        start = self._follow(place)
        size = _read(self._data, "<I", start)
        return _part(self._data, start + 4, size).decode("utf-8")

    def numbers(self, field: int, kind: str = "<I") -> list[int]:
        """Returns a vector of scalars."""
        start, count = self._vector(field)
        step = struct.calcsize(kind)
        _part(self._data, start, count * step)
        return [_read(self._data, kind, start + place * step) for place in range(count)]

    def tables(self, field: int) -> list[Table]:
        """Returns a vector of tables."""
        start, count = self._vector(field)
        _part(self._data, start, 4 * count)
        return [Table(self._data, self._follow(start + 4 * place)) for place in range(count)]

    def bytes(self, field: int) -> bytes:
        """Returns a vector of bytes."""
        start, count = self._vector(field)
        return _part(self._data, start, count)

    def _at(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return None
        offset = _read(self._data, "<H", self._vtable + entry)
        return self._place + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + _read(self._data, "<I", place)

    def _vector(self, field: int) -> tuple[int, int]:
        place = self._at(field)
        if place is None:
            return 0, 0
        start = self._follow(place)
        return start + 4, _read(self._data, "<I", start)


def _read(data: bytes, kind: str, place: int) -> int:
    if not 0 <= place <= len(data) - struct.calcsize(kind):
        raise ValueError(f"the flatbuffer of {len(data)} bytes ends before place {place}")
    return int(struct.unpack_from(kind, data, place)[0])


def _part(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise ValueError(f"the flatbuffer of {len(data)} bytes ends before place {start + size}")
    return data[start : start + size]

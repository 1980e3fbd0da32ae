"""ONNX graphs that keep weights in other files, found in the bytes: a device has no `onnx` package.

A tensor with data elsewhere has a `location`. A file without that word has nothing to find; in any other, the
messages are walked (protobuf: field number and wire type, then a number or a length with that many bytes):

    model → graph, functions, training info → nodes → attributes → tensors, and graphs again

Source: onnx/onnx.proto, `TensorProto.external_data` and `data_location`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD = b"location"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEPTH = 100
"""Messages inside each other; protobuf's own readers refuse more."""

_Field = tuple[int, int, int, int]
"""Number, value of a varint, and first and last place of the bytes."""

_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Fields of each message that lead to tensors."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_external_data(data: bytes, where: str) -> None:
    """Refuses an ONNX file with weights outside itself.

    Args:
        data: The file.
        where: Its bundle, for the message.

    Raises:
        BundleError: A tensor is kept in another file, or the bytes are no ONNX model.
    """
    if _WORD not in data:
        return
    try:
        found = _find(memoryview(data), 0, len(data), "model", _DEPTH)
    except (IndexError, RecursionError) as error:
        raise BundleError(
            f"payload of {where} is damaged or not an ONNX file", hint="export the bundle again"
        ) from error
    if found:
        raise BundleError(
            f"payload of {where} keeps weights in another file, which no hash covers, expected all inside; refused",
            hint="export the bundle again",
        )


def _find(data: memoryview, start: int, end: int, kind: str, depth: int) -> bool:
    """Returns whether a message holds a tensor with data elsewhere."""
    if not depth:
        raise RecursionError
    inside = _INSIDE.get(kind, {})
    for number, value, first, last in _fields(data, start, end):
        if kind == "tensor":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value):
                return True
        elif (below := inside.get(number)) is not None and _find(data, first, last, below, depth - 1):
            return True
    return False


def _fields(data: memoryview, place: int, end: int) -> Iterator[_Field]:
    while place < end:
        key, place = _varint(data, place, end)
        number, wire, value = key >> 3, key & 7, 0
        if wire == _VARINT:
            value, place = _varint(data, place, end)
            yield number, value, place, place
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if size is None:
            if wire != _BYTES:
                raise IndexError(f"wire type {wire}")
            size, place = _varint(data, place, end)
        if place + size > end:
            raise IndexError("cut")
        yield number, value, place, place + size
        place += size


def _varint(data: memoryview, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= end or shift > 63:
            raise IndexError("cut")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7

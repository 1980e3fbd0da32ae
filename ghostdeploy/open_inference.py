"""Tensors of the Open Inference Protocol, version 2, over HTTP: JSON, with binary data behind it or without.

    body = JSON | data of the first binary tensor | data of the second | …

The header `Inference-Header-Content-Length` tells the bytes of the JSON; without it the body is JSON alone. A binary
tensor has the parameter `binary_data_size`, its data are little-endian in C order. Others carry `data`, numbers flat or
nested by dimension. The protocol: https://github.com/kserve/open-inference-protocol, and Triton's
`extension_binary_data.md`.

Whatever a peer claims is checked before memory is taken: sizes must be those that shape and type give.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

JSON_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
}
"""The protocol's names of NumPy's types."""
_DTYPES = {theirs: np.dtype(ours) for ours, theirs in DATATYPES.items()}
_MOST_DIMENSIONS = 32
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
"""Kinds of numbers in JSON that an array of a kind takes."""


class Tensor(msgspec.Struct, kw_only=True):
    """A tensor as it travels; fields that we do not know are ignored."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Any = msgspec.UNSET


class Asked(msgspec.Struct, kw_only=True):
    """An output that a request names."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct, kw_only=True):
    """The JSON of a request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Asked] | None = None


class Response(msgspec.Struct, kw_only=True):
    """The JSON of an answer."""

    outputs: list[Tensor]


def read_request(body: bytes, json_length: str | None) -> tuple[Request, dict[str, NDArray[Any]]]:
    """Returns a request and its inputs by name.

    Args:
        body: Whole.
        json_length: The header `JSON_LENGTH`, if there was one.

    Raises:
        InputError: No request, or a tensor that contradicts itself.
    """
    found, rest = _parsed(body, json_length, Request, "the request")
    return found, arrays_of(found.inputs, rest, "input")


def read_response(body: bytes, json_length: str | None) -> dict[str, NDArray[Any]]:
    """Returns the outputs of an answer by name; arguments and errors as for `read_request`."""
    found, rest = _parsed(body, json_length, Response, "the answer")
    return arrays_of(found.outputs, rest, "output")


def written(arrays: Mapping[str, NDArray[Any]], *, binary: bool) -> tuple[bytes, int | None]:
    """Returns a request for all outputs, and the bytes of its JSON where binary data follow.

    Args:
        arrays: The inputs, by name.
        binary: Data behind the JSON, for the outputs too.
    """
    tensors: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, array in arrays.items():
        tensor: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype.name]}
        if binary:
            blobs.append(little(array))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = array.reshape(-1).tolist()
        tensors.append(tensor)
    document: dict[str, Any] = {"inputs": tensors}
    if binary:
        document["parameters"] = {"binary_data_output": True}
    head = msgspec.json.encode(document)
    return b"".join([head, *blobs]), len(head) if binary else None


def little(array: NDArray[Any]) -> bytes:
    """Returns an array's data as they travel."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def arrays_of(tensors: Sequence[Tensor], rest: memoryview, kind: str) -> dict[str, NDArray[Any]]:
    """Returns tensors as arrays, by name.

    Args:
        tensors: In the order of their binary data.
        rest: The binary data of all of them; nothing may be left.
        kind: `input` or `output`, for messages.

    Raises:
        InputError: A tensor contradicts itself, its data or another one.
    """
    found: dict[str, NDArray[Any]] = {}
    for tensor in tensors:
        what = f"{kind} {tensor.name!r}"
        if tensor.name in found:
            raise InputError(f"{what} is given twice, expected once")
        size = (tensor.parameters or {}).get("binary_data_size")
        if (size is None) == (tensor.data is msgspec.UNSET):
            given = "neither" if size is None else "both"
            raise InputError(f"{what} has {given} of data and binary_data_size, expected one of them")
        if size is None:
            found[tensor.name] = of_numbers(tensor.data, tensor.shape, tensor.datatype, what)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
            raise InputError(f"{what} claims {size!r} bytes of binary data, and {len(rest)} are left in the body")
        found[tensor.name] = of_bytes(rest[:size], tensor.shape, tensor.datatype, what)
        rest = rest[size:]
    if rest.nbytes:
        raise InputError(f"{rest.nbytes} bytes follow the data of the last {kind}, expected none")
    return found


def of_bytes(data: bytes | memoryview, shape: Sequence[int], datatype: str, what: str) -> NDArray[Any]:
    """Returns binary data as an array, read-only and without a copy.

    Args:
        data: As `little` writes them.
        shape: As the peer claims it.
        datatype: Likewise, the protocol's name.
        what: The tensor, for messages.

    Raises:
        InputError: These contradict each other.
    """
    dtype, count = _claimed(shape, datatype, what)
    if len(data) != count * dtype.itemsize:
        raise InputError(
            f"{what} has {len(data)} bytes, expected {count * dtype.itemsize} for {datatype} of shape {list(shape)}"
        )
    if dtype.kind == "b" and data and max(data) > 1:
        raise InputError(f"{what} is BOOL and has bytes other than 0 and 1")
    array = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    return array if sys.byteorder == "little" else array.astype(dtype)


def of_numbers(data: Any, shape: Sequence[int], datatype: str, what: str) -> NDArray[Any]:
    """Returns a list of numbers, flat or nested, as an array.

    Arguments and errors are those of `of_bytes`.
    """
    dtype, count = _claimed(shape, datatype, what)
    if not isinstance(data, list):
        raise InputError(f"data of {what} is {type(data).__name__}, expected a list of numbers")
    try:
        given = np.array(data)
    except (ValueError, OverflowError) as error:
        raise InputError(f"data of {what} is no array: lists of different lengths, or nested too deeply") from error
    if given.size != count:
        raise InputError(f"{what} has {given.size} values, expected {count} for shape {list(shape)}")
    if given.ndim > 1 and given.shape != tuple(shape):
        raise InputError(f"data of {what} is nested as {list(given.shape)}, expected {list(shape)}, or a flat list")
    if given.size and given.dtype.kind not in _KINDS[dtype.kind]:
        raise InputError(f"data of {what} is not all numbers that {datatype} takes")
    with np.errstate(all="ignore"):
        array = given.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(array, given):
        raise InputError(f"data of {what} has numbers beyond {datatype}")
    return array.reshape(shape)


def _claimed(shape: Sequence[int], datatype: str, what: str) -> tuple[np.dtype[Any], int]:
    """Returns type and number of values that a peer claims, in Python's integers, which do not overflow."""
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        hint = did_you_mean(datatype, _DTYPES, otherwise=f"types are {', '.join(_DTYPES)}")
        raise InputError(f"{what} has datatype {datatype[:40]!r}, which holds no numbers", hint=hint)
    if len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise InputError(
            f"{what} has shape {list(shape)[:8]}, expected at most {_MOST_DIMENSIONS} sizes, none below zero"
        )
    return dtype, math.prod(shape)


def _parsed(body: bytes, json_length: str | None, kind: type[Any], what: str) -> tuple[Any, memoryview]:
    whole = memoryview(body)
    length = len(body)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 20):
            raise InputError(f"{JSON_LENGTH} is {json_length[:40]!r}, expected a number of bytes")
        length = int(json_length)
    if length > len(body):
        raise InputError(f"{JSON_LENGTH} is {length}, and the body has {len(body)} bytes")
    try:
        return msgspec.json.decode(whole[:length], type=kind), whole[length:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
        raise InputError(f"{what} is not that of the Open Inference Protocol v2: {why}") from error

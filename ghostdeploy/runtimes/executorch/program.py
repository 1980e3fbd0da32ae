"""What is in an ExecuTorch program (`.pte`): names, what its delegates compute, and what is left outside of them.

    bytes 4…8    ET12, the identifier of the flatbuffer
    bytes 8…     eh00, u32 size of this header, u64 size of the flatbuffer, u64 start of the segments, u64 their size
    segments     one per delegate: XH00, u16 size of this header, u32 start and size of XNNPACK's graph, a flatbuffer

A program has neither names of inputs and outputs, nor of layers. PyTorch's specification of its arguments is in it, and
names the entries of dictionaries: the exporter gives the network one of inputs, and lets it return one of outputs. A
second method returns the names of layers, each with its number of weights, in their order: a layer of the program has
the first name left whose number is its own.
Source: `schema/program.fbs` and `backends/xnnpack/serialization/schema.fbs` of ExecuTorch 1.5.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from ghostdeploy.runtimes.executorch.flatbuffer import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHOD, LAYERS = "forward", "ghostdeploy_layers"
"""The network, and the method that returns the names of its layers."""
_IDENTIFIER, _HEADER, _DELEGATE = b"ET12", b"eh00", b"XH00"
_HEADER_SIZE = 32
_STRING, _KERNEL_CALL, _DELEGATE_CALL = 6, 1, 2
_QUANTIZED = 2
_CONVOLUTION = (15, 16, 18)
_LAYERS = {
    2: ("FullyConnected", (0, 1, 3)),
    7: ("Conv2d", _CONVOLUTION),
    13: ("DepthwiseConv2d", _CONVOLUTION),
    39: ("ConvTranspose2d", _CONVOLUTION),
}
"""Kinds of XNNPACK's nodes, and the fields that name their data, weights and output."""
TYPES = {1: "float32", 2: "float16", 3: "int8", 5: "int32", 6: "int8", 7: "int32"}
"""Of XNNPACK's values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor inside a delegate; maps are (N, H, W, C)."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegatedLayer:
    """A layer with weights inside a delegate."""

    name: str
    """PyTorch module, where the program says it."""
    kind: str
    data: Value
    weights: Value
    output: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that was read."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    delegates: tuple[str, ...]
    """Backends, one entry per call."""
    delegated: int
    """Operations inside delegates."""
    outside: tuple[str, ...]
    """Operations that ExecuTorch's own kernels compute, one entry per call."""
    layers: tuple[DelegatedLayer, ...]
    undelegated: tuple[str, ...]
    """Layers that no delegate has; PyTorch modules."""


def read(data: bytes) -> Program:
    """Reads a program.

    Raises:
        ValueError: It is none, or is damaged.
    """
    start = check(data)
    try:
        return _read(data, start)
    except (LookupError, struct.error, TypeError) as error:
        raise ValueError(f"the program is damaged: {error}") from error


def _read(data: bytes, start: int) -> Program:
    root = Table.root(data)
    plans = {plan.text(0): plan for plan in root.tables(1)}
    if METHOD not in plans:
        raise ValueError(f"the program has no method {METHOD}")
    plan = plans[METHOD]
    segments = [(segment.number(0, "<Q"), segment.number(1, "<Q")) for segment in root.tables(4)]
    graphs = []
    for one in plan.tables(7):
        place = one.table(1)
        inline = place is None or not place.number(0, "<b")
        index = 0 if place is None else place.number(1)
        if inline:
            graphs.append(_graph(root.tables(3)[index].bytes(0)))
        else:
            offset, size = segments[index]
            graphs.append(_graph(data[start + offset : start + offset + size]))
    waiting = _names_of_layers(plans.get(LAYERS))
    layers = [_named(layer, waiting) for graph in graphs for layer in _layers(graph)]
    delegates, outside = _calls(plan)
    specification = plan.table(1)
    inputs, outputs = ("", "") if specification is None else (specification.text(0), specification.text(1))
    return Program(
        inputs=tuple(_keys(inputs)),
        outputs=tuple(_keys(outputs)),
        delegates=tuple(delegates),
        delegated=sum(len(graph.tables(1)) for graph in graphs if graph is not None),
        outside=tuple(outside),
        layers=tuple(layers),
        undelegated=tuple(name for name, _ in waiting),
    )


def check(data: bytes) -> int:
    """Checks what ExecuTorch ends the process for, or finds out too late; returns where the segments begin.

    Raises:
        ValueError: It is no program, or has another size than its header says.
    """
    if data[4:8] != _IDENTIFIER or len(data) < 8 + _HEADER_SIZE:
        raise ValueError(f"it is no ExecuTorch program: bytes 4 to 8 are {data[4:8]!r}, expected {_IDENTIFIER!r}")
    if data[8:12] != _HEADER:
        return 0
    program, start, size = struct.unpack_from("<QQQ", data, 16)
    if (whole := max(start + size, program)) > len(data):
        raise ValueError(f"the program has {len(data)} bytes, its header says {whole}")
    return int(start)


def _graph(data: bytes) -> Table | None:
    """Returns XNNPACK's graph of a delegate, None for another backend."""
    if data[4:8] == _DELEGATE:
        start, size = struct.unpack_from("<II", data, 10)
        return Table.root(data[start : start + size])
    return Table.root(data) if data[4:8] == b"XN01" else None


def _calls(plan: Table) -> tuple[list[str], list[str]]:
    """Returns the backends that are called, and the operators."""
    operators = [f"{one.text(0)}.{one.text(1)}".rstrip(".") for one in plan.tables(6)]
    backends = [one.text(0) for one in plan.tables(7)]
    delegates, outside = [], []
    for chain in plan.tables(5):
        for instruction in chain.tables(2):
            kind, arguments = instruction.number(0, "<B"), instruction.table(1)
            index = 0 if arguments is None else arguments.number(0, "<i")
            if kind == _DELEGATE_CALL:
                delegates.append(backends[index])
            elif kind == _KERNEL_CALL:
                outside.append(operators[index])
    return delegates, outside


def _names_of_layers(plan: Table | None) -> list[tuple[str, int]]:
    values = [] if plan is None else plan.tables(2)
    for value in values:
        held = value.table(1)
        if value.number(0, "<B") == _STRING and held is not None:
            return [(str(name), int(count)) for name, count in json.loads(held.text(0))]
    return []


def _named(layer: DelegatedLayer, waiting: list[tuple[str, int]]) -> DelegatedLayer:
    """Returns a layer with its name, which is taken from those that wait."""
    own = next((one for one in waiting if one[1] == prod(layer.weights.shape)), None)
    if own is None:
        return layer
    waiting.remove(own)
    return replace(layer, name=own[0])


def _layers(graph: Table | None) -> Iterator[DelegatedLayer]:
    if graph is None:
        return
    values = dict(_value(entry) for entry in graph.tables(2))
    for node in graph.tables(1):
        number, held = node.number(0, "<B"), node.table(1)
        if held is None or number not in _LAYERS:
            continue
        kind, fields = _LAYERS[number]
        data, weights, output = (values[held.number(field)] for field in fields)
        yield DelegatedLayer(name=kind, kind=kind, data=data, weights=weights, output=output)


def _value(entry: Table) -> tuple[int, Value]:
    held = entry.table(1)
    if held is not None and entry.number(0, "<B") == _QUANTIZED:
        held = held.table(0)
    if held is None:
        raise ValueError("the program's delegate has a value without a type")
    kind = held.number(0, "<h")
    return held.number(6), Value(kind=TYPES.get(kind, f"type {kind}"), shape=tuple(held.numbers(2)))


def _keys(specification: str) -> Sequence[str]:
    """Returns the keys of the first dictionary in PyTorch's specification of arguments or results."""
    try:
        return _keys_in(json.loads(specification)[1])
    except (ValueError, LookupError, TypeError):
        return []


def _keys_in(spec: Any) -> list[str]:
    if not isinstance(spec, dict):
        return []
    if spec.get("type") == "builtins.dict" and spec.get("children_spec"):
        return [str(key) for key in json.loads(spec["context"])]
    return next((found for child in spec.get("children_spec") or () if (found := _keys_in(child))), [])

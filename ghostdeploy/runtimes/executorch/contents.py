"""What is in an ExecuTorch program (`.pte`): what its delegates compute, and what is left outside of them.

    segments     one per delegate: XH00, u16 size of this header, u32 start and size of XNNPACK's graph, a flatbuffer

A program has no names of layers. A second method returns them, each with its number of weights, in their order: a layer
of the program has the first name left whose number is its own.
Source: `schema/program.fbs` and `backends/xnnpack/serialization/schema.fbs` of ExecuTorch 1.5.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from ghostdeploy.runtimes.executorch.flatbuffer import Table
from ghostdeploy.runtimes.executorch.program import METHOD, check, plans

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = "ghostdeploy_layers"
"""The method that returns the names of layers."""
_DELEGATE = b"XH00"
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
    methods = plans(root)
    plan = methods[METHOD]
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
    waiting = _names_of_layers(methods.get(LAYERS))
    layers = [_named(layer, waiting) for graph in graphs for layer in _layers(graph)]
    delegates, outside = _calls(plan)
    return Program(
        delegates=tuple(delegates),
        delegated=sum(len(graph.tables(1)) for graph in graphs if graph is not None),
        outside=tuple(outside),
        layers=tuple(layers),
        undelegated=tuple(name for name, _ in waiting),
    )


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

"""What the quantizer must know of an ONNX graph: shapes, producers, readers, and the branches that stay float.

A *vector* is a tensor with one value per channel, (N, C) or (N, C, 1, 1). A vector branch begins at a global pool and
ends where a Mul or an Add spreads it over a map again: the squeeze-and-excite gate x·g(pool x), and the merge of a
G-Ghost stage y + m(pool x). A classifier is a chain of vectors that no map reads, so it is none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterable

_SPREADING = ("Mul", "Add")
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights."""


class OnnxGraph:
    """An index over a model whose shapes have been inferred.

    Args:
        model: Read, not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        values = (*graph.value_info, *graph.input, *graph.output)
        self.shapes = {value.name: _shape(value) for value in values}
        self._float = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}

    def activations(self, nodes: Iterable[onnx.NodeProto]) -> list[str]:
        """Returns the float tensors that the nodes read or write, constants left out, in graph order."""
        names = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name)
        return [name for name in names if self.is_float(name)]

    def is_float(self, name: str) -> bool:
        """Tells whether a tensor holds float32 values that change with the input."""
        return name in self._float and name not in self.constants

    def layers(self) -> list[onnx.NodeProto]:
        """Returns the nodes with constant weights."""
        return [n for n in self.nodes if n.op_type in LAYERS and n.input[1] in self.constants]

    def macs(self, node: onnx.NodeProto) -> int:
        """Returns the multiply-accumulates of a layer for one image; sizes that are not known count as 1."""
        weight: list[int] = list(self.constants[node.input[1]].dims)
        places = [size or 1 for size in self.shapes.get(node.output[0], ())[2:]]
        return math.prod(weight) * math.prod(places)

    def is_vector(self, name: str) -> bool:
        """Tells whether a tensor has one value per channel."""
        shape = self.shapes.get(name, ())
        return len(shape) == 2 or (len(shape) > 2 and set(shape[2:]) == {1})

    def is_map(self, name: str) -> bool:
        """Tells whether a tensor has several values per channel."""
        return len(self.shapes.get(name, ())) > 2 and not self.is_vector(name)

    def vector_branches(self) -> set[str]:
        """Returns the names of the nodes in branches that stay float."""
        found: set[str] = set()
        for node in self.nodes:
            if node.op_type not in _SPREADING or not self.is_map(node.output[0]):
                continue
            open_ends = [n for n in node.input if self.is_vector(n) and n not in self.constants]
            while open_ends:
                producer = self.producer.get(open_ends.pop())
                if producer is None or producer.name in found or not self.is_vector(producer.output[0]):
                    continue
                found.add(producer.name)
                open_ends += [name for name in producer.input if name not in self.constants]
        return found


def group_of(node: onnx.NodeProto) -> int:
    """Returns the groups of a convolution, 1 for other layers."""
    return int(next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1))


def output_axis(node: onnx.NodeProto) -> int:
    """Returns the axis of a layer's weight that counts its output channels."""
    if node.op_type == "Gemm":
        transposed = next((attribute.i for attribute in node.attribute if attribute.name == "transB"), 0)
        return 0 if transposed else 1
    return 0 if node.op_type == "Conv" else 1


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)

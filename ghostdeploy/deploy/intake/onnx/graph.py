"""An ONNX graph taken apart so that passes can edit it.

New weights are kept in float64 until the graph is put together again: a pass computes in float64, is proven in float64,
and rounds once.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


class Graph:
    """The nodes and constants of a model.

    Args:
        model: Shapes have been inferred; copied.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._shell = copy.deepcopy(model)
        graph = self._shell.graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.exact: dict[str, NDArray[np.float64]] = {}
        """New weights, in float64."""
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        values = (*graph.value_info, *graph.input, *graph.output)
        self.types = {value.name: value.type.tensor_type for value in values}
        del graph.node[:], graph.initializer[:]

    def model(self) -> onnx.ModelProto:
        """Puts the model together, without nodes and constants that no output needs."""
        model = copy.deepcopy(self._shell)
        self.prune()
        model.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | set(self.outputs)
        for name, tensor in self.constants.items():
            if name in used:
                model.graph.initializer.append(tensor)
        for name, array in self.exact.items():
            if name in used:
                model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
        known = {name for node in self.nodes for name in node.output}
        values = [value for value in model.graph.value_info if value.name in known]
        del model.graph.value_info[:]
        model.graph.value_info.extend(values)
        return model

    def prune(self) -> None:
        """Drops nodes that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed.update(node.input)
        self.nodes = kept[::-1]

    def array(self, name: str) -> NDArray[Any] | None:
        """Returns a constant, weights in float64 where a pass made them; None for what changes with the input."""
        if name in self.exact:
            return self.exact[name]
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def is_constant(self, name: str) -> bool:
        """Returns whether a tensor is a constant."""
        return name in self.exact or name in self.constants

    def element(self, name: str) -> int:
        """Returns the element type of a tensor as ONNX numbers it; 0 where it is not known."""
        if name in self.exact:
            return int(onnx.TensorProto.FLOAT)
        if name in self.constants:
            return int(self.constants[name].data_type)
        return int(self.types[name].elem_type) if name in self.types else 0

    def shape(self, name: str) -> tuple[int | str, ...] | None:
        """Returns the inferred shape, free sizes by name; None where the rank or a size is not known."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        kind = self.types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        sizes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
        return None if "" in sizes else sizes

    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Returns the nodes that read each tensor."""
        found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return found

    def producers(self) -> dict[str, onnx.NodeProto]:
        """Returns the node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.output}

    def drop(self, dropped: Iterable[onnx.NodeProto]) -> None:
        """Removes nodes."""
        gone = {id(node) for node in dropped}
        self.nodes = [node for node in self.nodes if id(node) not in gone]

    def bypass(self, node: onnx.NodeProto, source: str) -> bool:
        """Removes a node whose first output equals `source`; returns False where the names of outputs forbid it."""
        name = node.output[0]
        if name in self.outputs:
            maker = self.producers().get(source)
            if maker is None or source in self.outputs:
                return False
            maker.output[:] = [name if one == source else one for one in maker.output]
            name, source = source, name
        self.drop([node])
        for reader in self.nodes:
            if name in reader.input:
                reader.input[:] = [source if one == name else one for one in reader.input]
        return True

    def new_name(self, stem: str) -> str:
        """Returns `stem`, or with a number where it is taken."""
        taken = self.constants.keys() | self.exact.keys() | {name for node in self.nodes for name in node.output}
        number, name = 1, stem
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        return name


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Returns the attributes of a node as Python values."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

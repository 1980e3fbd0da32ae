"""An index over a Q/DQ graph: who writes and reads a tensor, which constant it is, what lies behind its Q/DQ pairs.

A *pair* is a QuantizeLinear Q on an activation with the DequantizeLinear nodes D that read it. D without Q stands
behind integer weights or biases:

    activation x → Q → D → layer        weight w (INT8 constant) → D → layer        bias b (INT32 constant) → D → layer

Rules speak of the float tensor x, so `source` walks up through pairs, casts and identities.
"""

from __future__ import annotations

from collections import defaultdict, deque
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx
    from numpy.typing import NDArray

Q, DQ = "QuantizeLinear", "DequantizeLinear"
LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with weights."""
ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Elu", "Softplus"}
)
"""Pointwise operators that fuse into the layer before them."""
TRANSPARENT = frozenset({Q, DQ, "Cast", "Identity"})
"""Operators that stand for the tensor they read."""
BIAS = 2
"""Input of a layer."""


class QdqGraph:
    """The index.

    Args:
        model: Read, not changed. Shapes are inferred where it carries none.

    Attributes:
        nodes: In the order of the file, which is topological.
        producer: The node that writes a tensor.
        readers: (node, input index) of every use of a tensor.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._model = model
        self.nodes = list(graph.node)
        self.outputs = [value.name for value in graph.output]
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name:
                    self.readers[name].append((node, index))
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._arrays: dict[str, NDArray[Any] | None] = {}

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shape of each tensor whose rank is known; None stands for an unknown size."""
        known = _shapes(self._model.graph)
        if all(node.output[0] in known for node in self.nodes):
            return known
        from onnx import shape_inference

        return _shapes(shape_inference.infer_shapes(self._model, data_prop=True).graph)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Returns the value of an initializer, a Constant, or either behind a Cast; None for what is computed."""
        if name not in self._arrays:
            self._arrays[name] = self._read(name)
        return self._arrays[name]

    def _read(self, name: str) -> NDArray[Any] | None:
        from onnx import helper, numpy_helper

        if name in self._tensors:
            return np.asarray(numpy_helper.to_array(self._tensors[name]))
        node = self.producer.get(name)
        if node is not None and node.op_type == "Constant":
            value = helper.get_node_attr_value(node, node.attribute[0].name)
            return np.asarray(numpy_helper.to_array(value) if hasattr(value, "data_type") else value)
        if node is not None and node.op_type == "Cast" and (array := self.constant(node.input[0])) is not None:
            return np.asarray(array.astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to", 1))))
        return None

    def is_constant(self, name: str) -> bool:
        """Tells an initializer, a Constant, or either behind a Cast."""
        node = self.producer.get(name)
        if node is None:
            return name in self._tensors
        return node.op_type == "Constant" or (node.op_type == "Cast" and self.is_constant(node.input[0]))

    def is_map(self, name: str) -> bool:
        """Tells a tensor (N, C, …) known to have several values per channel."""
        return any(size not in (None, 1) for size in self.shapes.get(name, ())[2:])

    def layers(self) -> Iterator[onnx.NodeProto]:
        """Yields the nodes whose weights are constant, quantized or not."""
        yield from (node for node in self.nodes if self.is_layer(node))

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Tells a node with constant weights."""
        return node.op_type in LAYERS and len(node.input) > 1 and self.is_constant(self.source(node.input[1]))

    def pairs(self) -> Iterator[tuple[onnx.NodeProto, list[onnx.NodeProto]]]:
        """Yields the QuantizeLinear of every activation with the DequantizeLinear nodes that read it."""
        for node in self.nodes:
            if node.op_type == Q and not self.is_constant(node.input[0]):
                yield node, [reader for reader, _ in self.readers[node.output[0]] if reader.op_type == DQ]

    def dequantizer(self, name: str) -> onnx.NodeProto | None:
        """Returns the DequantizeLinear that writes a tensor, directly or through casts; None for a bare one."""
        node = self.producer.get(name)
        while node is not None and node.op_type in ("Cast", "Identity"):
            node = self.producer.get(node.input[0])
        return node if node is not None and node.op_type == DQ else None

    def source(self, name: str) -> str:
        """Returns the tensor that a name stands for: behind Q/DQ, casts and identities."""
        while (node := self.producer.get(name)) is not None and node.op_type in TRANSPARENT:
            name = node.input[0]
        return name

    def is_quantized(self, layer: onnx.NodeProto) -> bool:
        """Tells a layer that computes with integers: data and weights come from DequantizeLinear."""
        return all(self.dequantizer(name) is not None for name in layer.input[:2])

    def layer_behind(self, name: str) -> onnx.NodeProto | None:
        """Returns the layer that writes a tensor, seen through Q/DQ and activations."""
        node = self.producer.get(self.source(name))
        while node is not None and node.op_type in ACTIVATIONS:
            node = self.producer.get(self.source(node.input[0]))
        return node if node is not None and self.is_layer(node) else None

    def module_of(self, node: onnx.NodeProto) -> str:
        """Returns the PyTorch module of a layer; of another node that of the nearest layer before, else behind it."""
        found = self._nearest(node, self._before) or self._nearest(node, self._behind)
        return found.name.partition("#")[0] if found is not None else ""

    def _before(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        yield from (self.producer[name] for name in node.input if name in self.producer)

    def _behind(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        yield from (reader for name in node.output for reader, _ in self.readers[name])

    def _nearest(
        self, start: onnx.NodeProto, step: Callable[[onnx.NodeProto], Iterator[onnx.NodeProto]]
    ) -> onnx.NodeProto | None:
        waiting, seen = deque([start]), {start.output[0]}
        while waiting:
            node = waiting.popleft()
            if self.is_layer(node):
                return node
            for other in step(node):
                if other.output[0] not in seen:
                    seen.add(other.output[0])
                    waiting.append(other)
        return None


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Returns an integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }

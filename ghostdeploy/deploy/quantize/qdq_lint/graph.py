"""An index over a Q/DQ graph: the tensors behind its Q/DQ pairs, and the branches of a Ghost network that stay float.

A *pair* is a QuantizeLinear Q on an activation with the DequantizeLinear nodes D that read it. D without Q follows
integer weights or biases:

    activation x → Q → D → layer        weight w (INT8 constant) → D → layer        bias b (INT32 constant) → D → layer

Rules speak of the float tensor x, so `source` walks up through pairs, casts and identities.

Float branches are found by structure:

    gate      x · σ(f(pool x))                squeeze and excitation, pool over all positions
    merge     y + m(pool x₀, pool x₁, …)     end of a G-Ghost stage, m one vector per image, spread over the map y
    attention x · resize(σ(g(x)))             decoupled fully connected attention of GhostNetV2: what follows σ

A pooled branch is recognised by its ends: every path upwards from one side of the Mul or Add ends at a global pool or a
constant, and not so from the other side.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph, attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx
    from numpy.typing import NDArray

Q, DQ = "QuantizeLinear", "DequantizeLinear"
ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Elu", "Softplus"}
)
"""Pointwise operators that fuse into the layer before them."""
TRANSPARENT = frozenset({Q, DQ, "Cast", "Identity"})
"""Operators that stand for the tensor they read."""
BIAS = 2
"""Input of a layer."""


Kind = Literal["gate", "merge", "attention"]

_SIGMOIDS = ("Sigmoid", "HardSigmoid")
_SPREADING = frozenset({*TRANSPARENT, "Resize", "Slice", "Expand", "Upsample", "Reshape"})
"""What may stand between the sigmoid of an attention and its Mul."""


@dataclass(frozen=True)
class Branch:
    """One float branch."""

    kind: Kind
    end: onnx.NodeProto
    """The Mul or Add that spreads it over a map."""
    nodes: tuple[onnx.NodeProto, ...]
    """Everything between pool (or sigmoid) and `end`, Q/DQ included, both ends left out."""


class QdqGraph(OnnxGraph):
    """The index, with pairs and float branches.

    Args:
        model: Read, not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._arrays: dict[str, NDArray[Any] | None] = {}

    def constant(self, name: str) -> NDArray[Any] | None:
        """Returns the value of an initializer, a Constant, or either after a Cast; None for what is computed."""
        if name not in self._arrays:
            self._arrays[name] = self._read(name)
        return self._arrays[name]

    def _read(self, name: str) -> NDArray[Any] | None:
        from onnx import helper, numpy_helper

        if name in self.constants:
            return np.asarray(numpy_helper.to_array(self.constants[name]))
        node = self.producer.get(name)
        if node is not None and node.op_type == "Constant":
            value = helper.get_node_attr_value(node, node.attribute[0].name)
            return np.asarray(numpy_helper.to_array(value) if hasattr(value, "data_type") else value)
        if node is not None and node.op_type == "Cast" and (array := self.constant(node.input[0])) is not None:
            return np.asarray(array.astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to", 1))))
        return None

    def is_constant(self, name: str) -> bool:
        """Recognises an initializer, a Constant, or either after a Cast."""
        node = self.producer.get(name)
        if node is None:
            return name in self.constants
        return node.op_type == "Constant" or (node.op_type == "Cast" and self.is_constant(node.input[0]))

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """In graph order."""
        return tuple(find_branches(self))

    @cached_property
    def branch_tensors(self) -> frozenset[str]:
        """What nodes in float branches write. What is wrong there is named by the branch's own rule and by no other."""
        return frozenset(name for branch in self.branches for node in branch.nodes for name in node.output)

    @cached_property
    def branch_ends(self) -> frozenset[str]:
        """What the Mul and Add nodes write that end the branches."""
        return frozenset(branch.end.output[0] for branch in self.branches)

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Returns whether a node has constant weights."""
        return node.op_type in LAYERS and len(node.input) > 1 and self.is_constant(self.source(node.input[1]))

    def pairs(self) -> Iterator[tuple[onnx.NodeProto, list[onnx.NodeProto]]]:
        """Yields the QuantizeLinear of every activation with the DequantizeLinear nodes that read it."""
        for node in self.nodes:
            if node.op_type == Q and not self.is_constant(node.input[0]):
                yield node, [reader for reader, _ in self.uses[node.output[0]] if reader.op_type == DQ]

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
        """Recognises a layer that computes with integers: data and weights come from DequantizeLinear."""
        return all(self.dequantizer(name) is not None for name in layer.input[:2])

    def layer_behind(self, name: str) -> onnx.NodeProto | None:
        """Returns the layer that writes a tensor, seen through Q/DQ and activations."""
        node = self.producer.get(self.source(name))
        while node is not None and node.op_type in ACTIVATIONS:
            node = self.producer.get(self.source(node.input[0]))
        return node if node is not None and self.is_layer(node) else None

    def module_of(self, node: onnx.NodeProto) -> str:
        """Returns the PyTorch module of a layer; of another node that of the nearest layer before, else after it."""
        found = self._nearest(node, self._before) or self._nearest(node, self._behind)
        return found.name.partition("#")[0] if found is not None else ""

    def _before(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        yield from (self.producer[name] for name in node.input if name in self.producer)

    def _behind(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        yield from (reader for name in node.output for reader, _ in self.uses[name])

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


def find_branches(graph: QdqGraph) -> Iterator[Branch]:
    """Yields the float branches in graph order."""
    for node in graph.nodes:
        if node.op_type not in ("Mul", "Add") or any(graph.is_constant(graph.source(n)) for n in node.input):
            continue
        sides = [pooled(graph, name) for name in node.input]
        found = [side for side in sides if side is not None]
        if len(found) == 1:
            yield Branch("gate" if node.op_type == "Mul" else "merge", node, found[0])
        elif node.op_type == "Mul" and not found:
            yield from (Branch("attention", node, n) for name in node.input if (n := behind_sigmoid(graph, name)))


def pooled(graph: QdqGraph, name: str) -> tuple[onnx.NodeProto, ...] | None:
    """Returns the nodes between a tensor and the global pools above it; None when some path does not end at one."""
    waiting, found, pools = [name], {}, 0
    while waiting:
        name = waiting.pop()
        if graph.is_constant(name):
            continue
        node = graph.producer.get(name)
        if node is None or (graph.is_map(name) and not is_global_pool(graph, node)):
            return None
        if is_global_pool(graph, node):
            pools += 1
        elif node.output[0] not in found:
            found[node.output[0]] = node
            waiting += [n for n in node.input if n]
    return tuple(found.values()) if pools else None


def behind_sigmoid(graph: QdqGraph, name: str) -> tuple[onnx.NodeProto, ...]:
    """Returns the nodes between a sigmoid and a tensor that it reaches through resizing; nothing when there is none."""
    nodes = []
    while (node := graph.producer.get(name)) is not None and node.op_type in _SPREADING:
        nodes.append(node)
        name = node.input[0]
    return tuple(nodes) if node is not None and node.op_type in _SIGMOIDS else ()


def is_global_pool(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    """Recognises a pool over all positions of a map (N, C, H, W)."""
    if node.op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        return True
    if node.op_type not in ("ReduceMean", "ReduceMax"):
        return False
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else None
    if axes is None:
        axes = np.array(next((list(a.ints) for a in node.attribute if a.name == "axes"), []))
    return sorted(int(axis) % 4 for axis in axes.reshape(-1)) == [2, 3]

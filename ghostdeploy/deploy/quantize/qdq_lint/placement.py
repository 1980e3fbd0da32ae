"""Rules about where Q/DQ pairs stand, in any network.

An INT8 engine moves Q up and DQ down until they meet a layer: DQ → layer → Q becomes one kernel. A pair that meets none
costs kernels of its own. So layers have all inputs quantized, operators without weights their inputs and their output,
and a pair nobody with integers reads is left out.

The branches of a Ghost network that stay float are found by structure:

    gate      x · σ(f(pool x))                squeeze and excitation, pool over all positions
    merge     y + m(pool x₀, pool x₁, …)     end of a G-Ghost stage, m one vector per image, spread over the map y
    attention x · resize(σ(g(x)))             decoupled fully connected attention of GhostNetV2: what follows σ

A pooled branch is recognised by its ends: every path upwards from one side of the Mul or Add ends at a global pool or a
constant, and not so from the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from ghostdeploy.deploy.quantize.qdq_lint.graph import DQ, TRANSPARENT, Q, QdqGraph

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    Finding = tuple[onnx.NodeProto, str]

    import onnx

MOVERS = frozenset(
    {
        *("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Pad"),
        *("Slice", "Split", "Gather", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat"),
    }
)
"""Operators without weights that have INT8 kernels or move integers."""


def no_dangling_qdq(graph: GhostGraph) -> Iterator[Finding]:
    """Q is read by DQ alone; DQ is read, and has Q or a constant before it (TensorRT, explicit quantization)."""
    for node in graph.nodes:
        if node.op_type == Q:
            others = [reader.op_type for reader, _ in graph.readers[node.output[0]] if reader.op_type != DQ]
            if others or not graph.readers[node.output[0]] or node.output[0] in graph.outputs:
                yield node, f"integers are read by {', '.join(others) or 'no node'}, expected DequantizeLinear alone"
        elif node.op_type == DQ:
            producer = graph.producer.get(node.input[0])
            if not graph.readers[node.output[0]] and node.output[0] not in graph.outputs:
                yield node, "output is read by nothing, expected a reader"
            elif not graph.is_constant(node.input[0]) and (producer is None or producer.op_type != Q):
                yield node, f"input {node.input[0]!r} comes from no QuantizeLinear, expected one or a constant"


def no_double_qdq(graph: GhostGraph) -> Iterator[Finding]:
    """An edge has one pair: DQ → Q rounds twice and keeps both kernels (TensorRT, Q/DQ placement)."""
    for node, _ in graph.pairs():
        before = graph.dequantizer(node.input[0])
        if before is not None:
            yield node, f"quantizes what {before.name!r} dequantizes, expected one pair on the edge"


def weighted_inputs_both(graph: GhostGraph) -> Iterator[Finding]:
    """Data and weights of a layer are both quantized or both float (TensorRT, Q/DQ placement: all inputs)."""
    for layer in graph.layers():
        data, weight = (graph.dequantizer(name) is not None for name in layer.input[:2])
        if data != weight and layer.output[0] not in graph.branch_tensors:
            found = "quantized data and float weights" if data else "float data and quantized weights"
            yield layer, f"{layer.op_type} has {found}, expected both quantized or both float"


def output_not_quantized(graph: GhostGraph) -> Iterator[Finding]:
    """A layer's output is quantized only for an INT8 reader, the graph's never (TensorRT, Q/DQ placement)."""
    for name in graph.outputs:
        node = graph.dequantizer(name)
        if node is not None:
            yield node, f"graph output {name!r} is quantized, expected float"
    for node, readers in _pairs_without_int8_reader(graph):
        layer = graph.layer_behind(node.input[0])
        if layer is not None:
            yield node, f"quantizes the output of {layer.name!r} for {readers}, expected an INT8 reader or no Q/DQ"


def qdq_can_fuse(graph: GhostGraph) -> Iterator[Finding]:
    """A pair meets an INT8 operator on one side at least (TensorRT, Q/DQ placement: other pairs cost a kernel each)."""
    for node, readers in _pairs_without_int8_reader(graph):
        producer = graph.producer.get(node.input[0])
        moved = producer is not None and producer.op_type in MOVERS and graph.dequantizer(producer.input[0]) is not None
        if not moved and graph.layer_behind(node.input[0]) is None:
            yield node, f"pair on {node.input[0]!r} is read by {readers}, expected an INT8 operator before or behind it"


def _pairs_without_int8_reader(graph: GhostGraph) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Yields Q and who reads the pair; other rules judge pairs in float branches, at outputs and without readers."""
    for node, dequantizers in graph.pairs():
        names = [name for dq in dequantizers for name in dq.output]
        readers = [reader.op_type for name in names for reader, _ in graph.readers[name]]
        elsewhere = node.output[0] in graph.branch_tensors or any(name in graph.outputs for name in names)
        if readers and not elsewhere and not _has_int8_reader(graph, names):
            yield node, ", ".join(dict.fromkeys(readers))


def _has_int8_reader(graph: GhostGraph, names: list[str]) -> bool:
    """Tells whether a layer, a Concat, a residual Add, or a mover whose output is quantized again reads a tensor."""
    waiting = list(names)
    while waiting:
        for reader, index in graph.readers[waiting.pop()]:
            if (
                (index == 0 and graph.is_layer(reader))
                or reader.op_type == "Concat"
                or _adds_two_tensors(graph, reader)
            ):
                return True
            if reader.op_type in MOVERS and any(
                r.op_type == Q for name in reader.output for r, _ in graph.readers[name]
            ):
                return True
            if reader.op_type in TRANSPARENT:
                waiting += reader.output
    return False


def _adds_two_tensors(graph: GhostGraph, node: onnx.NodeProto) -> bool:
    """Tells a residual Add from that of a constant and from the end of a merge branch."""
    constant = any(graph.is_constant(graph.source(name)) for name in node.input)
    return node.op_type == "Add" and not constant and node.output[0] not in graph.branch_ends


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


class GhostGraph(QdqGraph):
    """A Q/DQ graph with its float branches."""

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
    """Tells a pool over all positions of a map (N, C, H, W)."""
    if node.op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        return True
    if node.op_type not in ("ReduceMean", "ReduceMax"):
        return False
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else None
    if axes is None:
        axes = np.array(next((list(a.ints) for a in node.attribute if a.name == "axes"), []))
    return sorted(int(axis) % 4 for axis in axes.reshape(-1)) == [2, 3]

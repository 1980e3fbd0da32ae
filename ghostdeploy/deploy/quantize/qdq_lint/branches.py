"""The branches of a Ghost network that stay float, found by structure.

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

from ghostdeploy.deploy.quantize.qdq_lint.graph import TRANSPARENT, QdqGraph

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

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

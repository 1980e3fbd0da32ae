"""Roles and units of the layers of a Ghost network, and the branches that stay float, found by structure.

A grouped convolution whose input and output meet in one Concat is a *cheap* operation; the layer that feeds it is its
*primary* convolution (Han et al. 2020, §3.1). The two are one unit: a Concat needs both halves in one precision.

A vector branch begins at a global pool and ends where a Mul or an Add spreads it over a map again: the
squeeze-and-excite gate x·g(pool x), and the merge of a G-Ghost stage y + m(pool x). A classifier is a chain of vectors
that no map reads, so it is none. The linter finds such branches by rules of its own: it checks these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.convert.graph.index import OnnxGraph, attribute

if TYPE_CHECKING:
    import onnx

_SPREADING = ("Mul", "Add")
_ACTIVATIONS = ("Relu", "Clip", "HardSwish")


def roles(graph: OnnxGraph) -> dict[str, str]:
    """Returns primary, cheap, depthwise, grouped, pointwise, convolution or linear for every layer, by node name."""
    found = {node.name: _plain_role(graph, node) for node in graph.layers()}
    for cheap, primary in ghost_modules(graph):
        found[cheap.name], found[primary.name] = "cheap", "primary"
    return found


def units(graph: OnnxGraph) -> dict[str, str]:
    """Returns the unit of every layer by node name: its Ghost module's common prefix, else the layer's own name."""
    found = {node.name: node.name for node in graph.layers()}
    for cheap, primary in ghost_modules(graph):
        found[cheap.name] = found[primary.name] = common_prefix(primary.name, cheap.name)
    return found


def ghost_modules(graph: OnnxGraph) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Returns (cheap, primary) of every Ghost module."""
    found = []
    for node in graph.layers():
        if node.op_type != "Conv" or attribute(node, "group", 1) == 1:
            continue
        output = _behind_activation(graph, node.output[0])
        beside = {name for reader in graph.readers(output) if reader.op_type == "Concat" for name in reader.input}
        producer = graph.producer.get(node.input[0])
        while producer is not None and producer.op_type in _ACTIVATIONS:
            producer = graph.producer.get(producer.input[0])
        if node.input[0] in beside and producer is not None and producer.op_type == "Conv":
            found.append((node, producer))
    return found


def vector_branches(graph: OnnxGraph) -> set[str]:
    """Returns the names of the nodes in branches that stay float."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type not in _SPREADING or not graph.is_map(node.output[0]):
            continue
        open_ends = [n for n in node.input if graph.is_vector(n) and n not in graph.constants]
        while open_ends:
            producer = graph.producer.get(open_ends.pop())
            if producer is None or producer.name in found or not graph.is_vector(producer.output[0]):
                continue
            found.add(producer.name)
            open_ends += [name for name in producer.input if name not in graph.constants]
    return found


def _behind_activation(graph: OnnxGraph, name: str) -> str:
    readers = graph.readers(name)
    return str(readers[0].output[0]) if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS else name


def _plain_role(graph: OnnxGraph, node: onnx.NodeProto) -> str:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return "linear"
    dims = graph.constants[node.input[1]].dims
    if attribute(node, "group", 1) > 1:
        return "depthwise" if dims[1] == 1 else "grouped"
    return "pointwise" if set(dims[2:]) == {1} else "convolution"


def common_prefix(first: str, second: str) -> str:
    """Returns the module that holds both, the first one where there is none."""
    parts = []
    for a, b in zip(first.split("."), second.split("."), strict=False):
        if a != b:
            break
        parts.append(a)
    return ".".join(parts) or first

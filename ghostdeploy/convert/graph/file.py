"""The one writer of ONNX files: topologically sorted, fully checked, byte-reproducible.

The standard requires each node to come after those it reads, including those read by graphs in its attributes.
ONNX Runtime sorts on its own and so hides an unsorted graph; `onnx.checker` and the compilers of other vendors refuse
it. ONNX Runtime's quantizer appends what it adds at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.convert.base import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write(model: onnx.ModelProto, path: Path) -> None:
    """Writes a graph that leaves the house.

    Args:
        model: Its nodes may be in any order; changed in place: sorted.
        path: File to write.

    Raises:
        onnx.checker.ValidationError: The graph is not valid ONNX.
        onnx.shape_inference.InferenceError: Its types or shapes contradict each other.
    """
    path.write_bytes(encode(model))


def encode(model: onnx.ModelProto) -> bytes:
    """Returns what `write` writes."""
    sort(model.graph)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def ports(model: onnx.ModelProto) -> Ports:
    """Returns the inputs and outputs of a graph; a named size is a free one."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = (value for value in model.graph.input if value.name not in constants)
    return Ports(inputs=tuple(map(_spec, inputs)), outputs=tuple(map(_spec, model.graph.output)))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape=shape)


def write_constant_outputs(graph: onnx.GraphProto) -> None:
    """Puts an `Identity` before every output that is an initializer, in place.

    ONNX Runtime takes an initializer as an output; shape inference gives it no shape, and the checker then refuses it.
    """
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    for tensor in graph.initializer:
        name = tensor.name
        if name not in {value.name for value in graph.output}:
            continue
        tensor.name = f"{name}/constant"
        while tensor.name in taken:
            tensor.name += "_"
        for node in graph.node:
            _rename_read(node, name, tensor.name)
        graph.node.append(onnx.helper.make_node("Identity", [tensor.name], [name], name=f"{name}/Identity"))


def _rename_read(node: onnx.NodeProto, old: str, new: str) -> None:
    node.input[:] = [new if one == old else one for one in node.input]
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename_read(inner, old, new)


def sort(graph: onnx.GraphProto) -> None:
    """Brings the nodes of a graph and of the graphs inside them into order, in place; sorted ones keep theirs.

    Raises:
        ValueError: The graph has a cycle.
    """
    for node in graph.node:
        for inner in subgraphs(node):
            sort(inner)
    nodes = sorted_nodes(graph)
    if any(own is not other for own, other in zip(graph.node, nodes, strict=True)):
        ordered = onnx.GraphProto(node=nodes).node
        del graph.node[:]
        graph.node.extend(ordered)


def sorted_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Returns the nodes so that each comes after those it reads; the order of the graph is kept otherwise.

    Raises:
        ValueError: The graph has a cycle.
    """
    nodes = list(graph.node)
    producers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    reads = [[producers[name] for name in read_by(node) if name in producers] for node in nodes]
    state = [""] * len(nodes)
    ordered: list[onnx.NodeProto] = []
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            index = stack[-1]
            missing = [other for other in reads[index] if state[other] != "done"]
            if state[index] == "done" or not missing:
                if state[index] != "done":
                    ordered.append(nodes[index])
                state[stack.pop()] = "done"
            elif state[index] == "entered":  # what it reads was to be done by now
                raise ValueError(f"node {nodes[index].name} is part of a cycle")
            else:
                state[index] = "entered"
                stack += reversed(missing)
    return ordered


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yields the values that a node reads: its inputs, and those of its subgraphs from outside."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        inside = {value.name for value in (*graph.input, *graph.initializer)}
        inside |= {name for inner in graph.node for name in inner.output}
        names = (*(name for inner in graph.node for name in read_by(inner)), *(value.name for value in graph.output))
        yield from (name for name in names if name not in inside)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the graphs in a node's attributes: branches of `If`, bodies of `Loop` and `Scan`."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs

"""Rules about the placement of Q/DQ pairs, in any network.

An INT8 engine moves Q up and DQ down until they reach a layer: DQ → layer → Q becomes one kernel. A pair that reaches
none costs kernels of its own. So layers have all inputs quantized, operators without weights their inputs and their
output, and a pair without an integer reader is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def no_dangling_qdq(graph: QdqGraph) -> Iterator[Finding]:
    """Q is read by DQ alone; DQ is read, and has Q or a constant before it (TensorRT, explicit quantization)."""
    for node in graph.nodes:
        if node.op_type == Q:
            others = [reader.op_type for reader, _ in graph.uses[node.output[0]] if reader.op_type != DQ]
            if others or not graph.uses[node.output[0]] or node.output[0] in graph.outputs:
                yield node, f"integers are read by {', '.join(others) or 'no node'}, expected DequantizeLinear alone"
        elif node.op_type == DQ:
            producer = graph.producer.get(node.input[0])
            if not graph.uses[node.output[0]] and node.output[0] not in graph.outputs:
                yield node, "output is read by nothing, expected a reader"
            elif not graph.is_constant(node.input[0]) and (producer is None or producer.op_type != Q):
                yield node, f"input {node.input[0]!r} comes from no QuantizeLinear, expected one or a constant"


def no_double_qdq(graph: QdqGraph) -> Iterator[Finding]:
    """An edge has one pair: DQ → Q rounds twice and keeps both kernels (TensorRT, Q/DQ placement)."""
    for node, _ in graph.pairs():
        before = graph.dequantizer(node.input[0])
        if before is not None:
            yield node, f"quantizes what {before.name!r} dequantizes, expected one pair on the edge"


def weighted_inputs_both(graph: QdqGraph) -> Iterator[Finding]:
    """Data and weights of a layer are both quantized or both float (TensorRT, Q/DQ placement: all inputs)."""
    for layer in graph.layers():
        data, weight = (graph.dequantizer(name) is not None for name in layer.input[:2])
        if data != weight and layer.output[0] not in graph.branch_tensors:
            found = "quantized data and float weights" if data else "float data and quantized weights"
            yield layer, f"{layer.op_type} has {found}, expected both quantized or both float"


def output_not_quantized(graph: QdqGraph) -> Iterator[Finding]:
    """A layer's output is quantized only for an INT8 reader, the graph's never (TensorRT, Q/DQ placement)."""
    for name in graph.outputs:
        node = graph.dequantizer(name)
        if node is not None:
            yield node, f"graph output {name!r} is quantized, expected float"
    for node, readers in _pairs_without_int8_reader(graph):
        layer = graph.layer_behind(node.input[0])
        if layer is not None:
            yield node, f"quantizes the output of {layer.name!r} for {readers}, expected an INT8 reader or no Q/DQ"


def qdq_can_fuse(graph: QdqGraph) -> Iterator[Finding]:
    """At least one side of a pair is an INT8 operator (TensorRT, Q/DQ placement: other pairs cost a kernel each)."""
    for node, readers in _pairs_without_int8_reader(graph):
        producer = graph.producer.get(node.input[0])
        moved = producer is not None and producer.op_type in MOVERS and graph.dequantizer(producer.input[0]) is not None
        if not moved and graph.layer_behind(node.input[0]) is None:
            yield node, f"pair on {node.input[0]!r} is read by {readers}, expected an INT8 operator before or after it"


def _pairs_without_int8_reader(graph: QdqGraph) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Yields Q and who reads the pair; other rules judge pairs in float branches, at outputs and without readers."""
    for node, dequantizers in graph.pairs():
        names = [name for dq in dequantizers for name in dq.output]
        readers = [reader.op_type for name in names for reader, _ in graph.uses[name]]
        elsewhere = node.output[0] in graph.branch_tensors or any(name in graph.outputs for name in names)
        if readers and not elsewhere and not _has_int8_reader(graph, names):
            yield node, ", ".join(dict.fromkeys(readers))


def _has_int8_reader(graph: QdqGraph, names: list[str]) -> bool:
    """Returns whether a layer, a Concat, a residual Add, or a mover whose output is quantized again reads a tensor."""
    waiting = list(names)
    while waiting:
        for reader, index in graph.uses[waiting.pop()]:
            if (
                (index == 0 and graph.is_layer(reader))
                or reader.op_type == "Concat"
                or _adds_two_tensors(graph, reader)
            ):
                return True
            if reader.op_type in MOVERS and any(r.op_type == Q for name in reader.output for r, _ in graph.uses[name]):
                return True
            if reader.op_type in TRANSPARENT:
                waiting += reader.output
    return False


def _adds_two_tensors(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    """Distinguishes a residual Add from that of a constant and from the end of a merge branch."""
    constant = any(graph.is_constant(graph.source(name)) for name in node.input)
    return node.op_type == "Add" and not constant and node.output[0] not in graph.branch_ends

"""What stands behind the last layers of a network stays float: it costs nothing, and its numbers mean something.

A head's last convolutions give logits and distances. What follows makes boxes and scores of them: reshapes and a
Concat that joins pixels (0 … 640) with scores (0 … 1), a softmax over bins, sums with anchors. In 8 bits a Concat would
give both one scale: a step of 2.5 at 640 pixels, and every score 0. So no operator is quantized that no layer reads,
directly or through others. The expectation over bins

    d = Σ j · softmax(l)_j

counts as such an operator, though it is often written as a convolution with the constants 0, 1, ….
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.convert.graph.index import output_axis

if TYPE_CHECKING:
    import onnx

    from ghostdeploy.convert.graph.index import OnnxGraph

_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split")


def behind_layers(graph: OnnxGraph) -> set[str]:
    """Returns the names of the nodes that no layer reads, directly or through others."""
    layers = [node for node in graph.layers() if not is_expectation(graph, node)]
    kept, waiting = {id(node) for node in layers}, [name for node in layers for name in node.input]
    while waiting:
        producer = graph.producer.get(waiting.pop())
        if producer is not None and id(producer) not in kept:
            kept.add(id(producer))
            waiting += producer.input
    return {node.name for node in graph.nodes if id(node) not in kept}


def is_expectation(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Returns whether a layer has one output and reads a softmax: it is a mean over bins."""
    if graph.constants[node.input[1]].dims[output_axis(node)] != 1:
        return False
    producer = graph.producer.get(node.input[0])
    while producer is not None and producer.op_type in _MOVES:
        producer = graph.producer.get(producer.input[0])
    return producer is not None and producer.op_type == "Softmax"

"""Which tensors of a graph are never below 0, by the operators that write them: their zero point is 0.

Relu, Sigmoid, HardSigmoid, Softmax, Softplus       give nothing below 0
Clip with a constant minimum from 0                 likewise
MaxPool, Concat, Reshape, Add, Mul, …               if none of their inputs is below 0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from ghostdeploy.convert.graph.index import OnnxGraph

_MAKES = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus"})
_KEEPS = frozenset(
    {"AveragePool", "Flatten", "GlobalAveragePool", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
)
_KEEPS_ALL = frozenset({"Add", "Concat", "Mul"})


def is_positive(graph: OnnxGraph, tensor: str) -> bool:
    """Returns whether a tensor is proven never to be below 0."""
    seen, waiting = set[str](), [tensor]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.producer.get(name)
        if node is None:
            return False
        if node.op_type in _KEEPS:
            waiting.append(node.input[0])
        elif node.op_type in _KEEPS_ALL:
            waiting += node.input
        elif node.op_type not in _MAKES and not _clips(graph, node):
            return False
    return True


def _clips(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    from onnx import numpy_helper

    least = graph.constants.get(node.input[1]) if node.op_type == "Clip" and len(node.input) > 1 else None
    return least is not None and float(numpy_helper.to_array(least)) >= 0

"""INT8 weights for memory-bound linear layers of an ONNX graph.

    y = x·W + b,  W ≈ s·Q        Q = round(W / s) in −127 … 127,  s = max |W| / 127 per output column

Written in standard operators: `DequantizeLinear(Q, s)` before the matrix of each chosen layer. ONNX Runtime makes
`MatMulNBits` of the pair when it loads the file, and rounds the data of the layer to 8 bits per block: no float
variant is as fast (decision 0022). OpenVINO keeps the integers and multiplies floats; others restore floats.
ONNX Runtime 1.32 does not fuse a layer if only a Relu is between it and the next such layer, and would then dequantize
its weights at every inference: there the Relu is written as Max(y, 0), the same function.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ghostdeploy.convert.base import Written
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.convert.graph.precision import read_precision
from ghostdeploy.convert.graph.simplify import name_layers
from ghostdeploy.layer_costs import waits_for_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.convert.base import ExportJob

_LEVELS = 127
_ZERO = "zero_of_max"
_SCHEME = "weights int8 symmetric per channel on {} memory-bound layers, float32 elsewhere"


def compress(model: onnx.ModelProto, batch: int | None) -> str:
    """Gives the memory-bound layers INT8 weights.

    Args:
        model: Simplified float graph, changed in place.
        batch: Images per inference; None is free.

    Returns:
        The line for manifests.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.float32(0), _ZERO))
    nodes, count, products, results = [], 0, set[str](), set[str]()
    for node in graph.node:
        if is_chosen(node, constants, batch):
            nodes.append(_compress_layer(graph, node, constants))
            products.add(node.output[0])
            count += 1
        elif node.op_type == "Add" and products & set(node.input):
            results.add(node.output[0])
        elif node.op_type == "Relu" and node.input[0] in products | results:
            node.op_type = "Max"
            node.input.append(_ZERO)
        nodes.append(node)
    ordered = onnx.GraphProto(node=nodes).node
    del graph.node[:]
    graph.node.extend(ordered)
    used = Counter(name for node in graph.node for name in node.input)
    kept = [tensor for tensor in graph.initializer if used[tensor.name]]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return _SCHEME.format(count)


def write_payload(model: onnx.ModelProto, job: ExportJob) -> Written:
    """Names the layers, stores what `hybrid` stores in INT8, writes `model.onnx` and reads it back; changes `model`."""
    name_layers(model.graph, job.modules)
    waiting = count_waiting(model, job.batch)
    scheme = compress(model, job.batch) if job.precision == "hybrid" else None
    path = Path(job.folder) / "model.onnx"
    onnx_file.write(model, path)
    found = onnx_file.ports(model)
    return Written(precision=read_precision(path), scheme=scheme, ports=found, waiting_layers=waiting)


def count_waiting(model: onnx.ModelProto, batch: int | None) -> int:
    """Returns how many layers `compress` would choose."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return sum(is_chosen(node, constants, batch) for node in model.graph.node)


def is_chosen(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], batch: int | None) -> bool:
    """Returns whether a node is a memory-bound linear layer on vectors."""
    if node.op_type not in ("Gemm", "MatMul") or len(node.input) < 2 or node.input[1] not in constants:
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = attributes.get("alpha", 1) == attributes.get("beta", 1) == 1 and not attributes.get("transA", 0)
    weight = constants[node.input[1]]
    return plain and len(weight.dims) == 2 and waits_for_memory(int(np.prod(weight.dims)), 1, batch)


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Returns integers (K, N) and scales (N,) of a matrix (K, N); a column of zeros has scale 1."""
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / _LEVELS, 1).astype(np.float32)
    return np.rint(weight / scale).clip(-_LEVELS, _LEVELS).astype(np.int8), scale


def _compress_layer(
    graph: onnx.GraphProto, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> onnx.NodeProto:
    """Stores a layer's matrix as integers, and returns the node that restores it before the layer."""
    name = node.input[1]
    weight = numpy_helper.to_array(constants[name])
    for attribute in node.attribute:
        if attribute.name == "transB" and attribute.i:
            weight, attribute.i = weight.T, 0
    integers, scale = quantize_columns(np.ascontiguousarray(weight))
    restored = f"{name}_restored"
    if not any(tensor.name == f"{name}_int8" for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(integers, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    restore = helper.make_node(
        "DequantizeLinear",
        [f"{name}_int8", f"{name}_scale"],
        [f"{restored}_{node.name}"],
        name=f"{restored}_{node.name}",
        axis=1,
    )
    node.input[1] = restore.output[0]
    return restore

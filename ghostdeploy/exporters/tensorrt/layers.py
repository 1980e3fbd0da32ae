"""Layers of a strongly typed ONNX graph: which precision is written at each, and how much work it is.

int8   data and weights both come out of DequantizeLinear nodes that read INT8
fp16   the layer's data is float16
fp32   the layer's data is float32

MACs of one image: see `layer_costs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto

from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph
from ghostdeploy.nvidia.kit import LayerPrecision, LayerSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


def written_layers(model: onnx.ModelProto) -> dict[str, LayerSpec]:
    """Returns precision and work of every layer with weights, by node name, in the graph's order.

    Raises:
        ValueError: A layer has no name, a name is used twice, or a layer's shape cannot be inferred.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    index, graph = OnnxGraph(inferred), inferred.graph
    values = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)}
    found: dict[str, LayerSpec] = {}
    for node in index.nodes:
        if node.op_type not in LAYERS:
            continue
        if not node.name or node.name in found:
            raise ValueError(f"the {node.op_type} layer {node.name!r} has no name of its own")
        sources = [index.producer.get(name) for name in node.input[:2]]
        quantized = all(source is not None and _reads_int8(source, values, index.constants) for source in sources)
        element = values[node.output[0]].elem_type
        precision: LayerPrecision = "fp16" if element == TensorProto.FLOAT16 else "fp32"
        macs = index.macs(node)
        if not macs:
            raise ValueError(f"the work of layer {node.name} cannot be counted: a size is unknown")
        found[node.name] = LayerSpec(kind=node.op_type, precision="int8" if quantized else precision, macs=macs)
    return found


def _reads_int8(node: onnx.NodeProto, values: Mapping[str, Any], constants: Mapping[str, Any]) -> bool:
    source = node.input[0] if node.op_type == "DequantizeLinear" else ""
    element = constants[source].data_type if source in constants else getattr(values.get(source), "elem_type", 0)
    return bool(element == TensorProto.INT8)

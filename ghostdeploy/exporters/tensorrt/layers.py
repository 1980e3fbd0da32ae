"""Layers of a strongly typed ONNX graph: which precision is written at each, and how much work it is.

int8   data and weights both come out of DequantizeLinear nodes that read INT8
fp16   the layer's data is float16
fp32   the layer's data is float32

MACs of one image    Conv, ConvTranspose   see `attestation`      Gemm, MatMul   outputs · inputs
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto

from ghostdeploy.convert.attestation import convolution_macs
from ghostdeploy.exporters.tensorrt.half import LAYERS
from ghostdeploy.nvidia.kit import LayerPrecision, LayerSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


def written_layers(model: onnx.ModelProto) -> dict[str, LayerSpec]:
    """Returns precision and work of every layer with weights, by node name, in the graph's order.

    Raises:
        ValueError: A layer has no name, a name is used twice, or a layer's shape cannot be inferred.
    """
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    found: dict[str, LayerSpec] = {}
    for node in graph.node:
        if node.op_type not in LAYERS:
            continue
        if not node.name or node.name in found:
            raise ValueError(f"the {node.op_type} layer {node.name!r} has no name of its own")
        sources = [producers.get(name) for name in node.input[:2]]
        quantized = all(source is not None and _reads_int8(source, values, constants) for source in sources)
        element = values[node.output[0]].elem_type
        precision: LayerPrecision = "fp16" if element == TensorProto.FLOAT16 else "fp32"
        macs = _macs(node, values, _shape(node.input[1], values, constants))
        found[node.name] = LayerSpec(kind=node.op_type, precision="int8" if quantized else precision, macs=macs)
    return found


def _reads_int8(node: onnx.NodeProto, values: Mapping[str, Any], constants: Mapping[str, Any]) -> bool:
    source = node.input[0] if node.op_type == "DequantizeLinear" else ""
    element = constants[source].data_type if source in constants else getattr(values.get(source), "elem_type", 0)
    return bool(element == TensorProto.INT8)


def _shape(name: str, values: Mapping[str, Any], constants: Mapping[str, Any]) -> list[int]:
    if name in constants:
        return list(constants[name].dims)
    return [dim.dim_value for dim in values[name].shape.dim]


def _macs(node: onnx.NodeProto, values: Mapping[str, Any], weight: list[int]) -> int:
    transposed = node.op_type == "ConvTranspose"
    image = [dim.dim_value or None for dim in values[node.input[0] if transposed else node.output[0]].shape.dim]
    if "Conv" in node.op_type:
        macs = convolution_macs(weight, image)
    else:
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        macs = math.prod(size or 0 for size in image[1:]) * (weight[-1] if turned else weight[-2])
    if not macs:
        raise ValueError(f"the shape of layer {node.name} cannot be inferred: {image}, weights {weight}")
    return macs

"""Costs of an ONNX graph; needs the `onnx` package, which a device does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ghostdeploy.layer_costs import FLOAT_BYTES, LayerCost, layer_cost

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "MatMulInteger")
_PASSED = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose")
"""Operators between stored weights and the layer."""
_BITS8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def read_costs(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the costs of all layers whose shapes are known.

    Args:
        bundle: Holds the file.
        batch: Images per call, for a graph whose batch is free.
    """
    model = onnx.load_model_from_string(bundle.read(bundle.manifest.payload))
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = [size.dim_value if size.HasField("dim_value") else batch for size in sizes]
    found = []
    for node in graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        weights, data, output = stored.get(_origin(node.input[1], makers)), node.input[0], node.output[0]
        if weights is None or data not in shapes or output not in shapes:
            continue
        maker, transposed = makers.get(data), node.op_type == "ConvTranspose"
        coded = "Integer" in node.op_type or (maker is not None and maker.op_type == "DequantizeLinear")
        convolution = "Conv" in node.op_type
        found.append(
            layer_cost(
                node.name,
                weights=weights.dims,
                features=weights.dims[0] if convolution else shapes[output][-1],
                data=shapes[data],
                output=shapes[output],
                weight_size=1 if weights.data_type in _BITS8 else FLOAT_BYTES,
                data_size=1 if coded else FLOAT_BYTES,
                transposed=transposed,
            )
        )
    return found


def _origin(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    """Returns the name of the constant that a layer's weights come from."""
    while name in makers and makers[name].op_type in _PASSED:
        name = makers[name].input[0]
    return name

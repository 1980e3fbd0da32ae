"""Costs of a TFLite graph; read with the tools of `ai-edge-litert`, which the older tflite-runtime lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.layer_costs import FLOAT_BYTES, LayerCost, layer_cost
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert.tools import flatbuffer_utils

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle

_FEATURES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 3}
"""Operators with weights, and the dimension of the weights that the channels of the output, or input, are in."""
_INT8 = 9


def read_costs(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the costs of all layers with weights.

    Args:
        bundle: Holds the file.
        batch: Not used: the file has its own batch.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(bundle.read(bundle.manifest.payload)))
    graph = model.subgraphs[0]
    kinds = [str(flatbuffer_utils.opcode_to_name(model, one.opcodeIndex)) for one in graph.operators]
    unpacked = {
        int(one.outputs[0]): int(one.inputs[0])
        for kind, one in zip(kinds, graph.operators, strict=True)
        if kind == "DEQUANTIZE"
    }
    found = []
    for kind, operator in zip(kinds, graph.operators, strict=True):
        if kind not in _FEATURES:
            continue
        transposed, place = kind == "TRANSPOSE_CONV", int(operator.inputs[1])
        weights = graph.tensors[unpacked.get(place, place)]
        data, output = graph.tensors[operator.inputs[2 if transposed else 0]], graph.tensors[operator.outputs[0]]
        shape = _sizes(weights)
        found.append(
            layer_cost(
                bytes(output.name or b"").decode(),
                weights=shape,
                features=shape[_FEATURES[kind]],
                data=_sizes(data),
                output=_sizes(output),
                weight_size=1 if weights.type == _INT8 else FLOAT_BYTES,
                data_size=1 if data.type == _INT8 else FLOAT_BYTES,
                transposed=transposed,
            )
        )
    return found


def _sizes(tensor: Any) -> list[int]:
    return [int(size) for size in tensor.shape]

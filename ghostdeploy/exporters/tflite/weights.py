"""Weights in fewer bits, data in float: no calibration needed.

`fp16`    every weight in half precision, restored to float32 when the model is loaded.
`hybrid`  INT8 weights for memory-bound layers (see `layer_costs`): squeeze-and-excite, the head after the
          pool, the classifier. One scale per output channel, but one for all of a fully connected layer:
          tflite-runtime 2.14 takes the first for all whatever is there.

In INT8 such a layer reads a quarter of the bytes. LiteRT quantizes its data at run time, per image (dynamic range), and
multiplies integers.
"""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING, Any

from ghostdeploy.exporters.tflite import file as tflite_file
from ghostdeploy.layer_costs import waits_for_memory
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

if TYPE_CHECKING:
    from collections.abc import Iterable

COMPRESSED = ("fp16", "hybrid")
_SCHEME = "weights int8 symmetric on {} memory-bound layers, their activations quantized per image; float32 elsewhere"


def _dynamic(granularity: qtyping.QuantGranularity) -> qtyping.OpQuantizationConfig:
    weights = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True, granularity=granularity)
    return qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.INTEGER, explicit_dequantize=False
    )


_DYNAMIC = {
    "CONV_2D": _dynamic(qtyping.QuantGranularity.CHANNELWISE),
    "FULLY_CONNECTED": _dynamic(qtyping.QuantGranularity.TENSORWISE),
}
_HALF = qtyping.OpQuantizationConfig(
    weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
    compute_precision=qtyping.ComputePrecision.FLOAT,
    explicit_dequantize=True,
)
_KINDS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")


def compress(model: Any, precision: str) -> tuple[Any, str | None]:
    """Returns the model with smaller weights, and for integers the line for manifests.

    Args:
        model: Float model object with named tensors.
        precision: `fp16` or `hybrid`.
    """
    work = quantizer.Quantizer(tflite_file.pack(model))
    if precision == "fp16":
        for kind in _KINDS:
            name = qtyping.TFLOperationName(kind)
            work.update_quantization_recipe(".*", name, _HALF, algorithm_key=AlgorithmName.FLOAT_CASTING)
        return tflite_file.read(bytes(work.quantize(enable_progress_report=False).quantized_model)), None
    chosen = list(vector_layers(model))
    for kind, name in chosen:
        work.update_quantization_recipe(scope(name), qtyping.TFLOperationName(kind), _DYNAMIC[kind])
    if not chosen:
        return model, _SCHEME.format(0)
    found = work.quantize(enable_progress_report=False).quantized_model
    return tflite_file.read(bytes(found)), _SCHEME.format(len(chosen))


def vector_layers(model: Any) -> Iterable[tuple[str, str]]:
    """Yields kind and output name of every memory-bound layer, see `layer_costs`."""
    for kind, operator in tflite_file.layers(model):
        output = tflite_file.tensor(model, operator.outputs[0])
        batch, *places = (int(size) for size in output.shape[:-1])
        weights = prod(int(size) for size in tflite_file.tensor(model, operator.inputs[1]).shape)
        if kind in _DYNAMIC and waits_for_memory(weights, prod(places), batch):
            yield kind, tflite_file.name_of(model, operator.outputs[0])


def scope(output: str) -> str:
    """Returns the quantizer's pattern for the operator that writes the tensor of that name."""
    return f"^{re.escape(output)};"

"""The INT8 file: AI Edge Quantizer writes it, with our ranges and choice of layers.

Activations are INT8 with a zero point, per tensor; weights INT8 symmetric per output channel; biases INT32. What its
defaults lose, measured on both sample models: ranges as a moving average of each image's extremes clip what comes late
(17 and 21 dB against 30 and 35 dB with the extremes of all images); everything else of it is kept.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.exporters.tflite.quantize.limits import cap_weight_scales, saturated_swishes
from ghostdeploy.exporters.tflite.weights import scope
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ACTIVATION = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False)
_WEIGHT = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE)
_STATIC = qtyping.OpQuantizationConfig(
    activation_tensor_config=_ACTIVATION,
    weight_tensor_config=_WEIGHT,
    compute_precision=qtyping.ComputePrecision.INTEGER,
    explicit_dequantize=False,
)
_ONE_SCALE = ("CONCATENATION", "DYNAMIC_UPDATE_SLICE", "MAXIMUM", "PACK", "PADV2", "SELECT", "SELECT_V2")
"""Operators whose operands take the scale of the result. AI Edge Quantizer 0.10 gives it to a constant operand in a
rank that the constant does not have, and then refuses it."""


def write(
    data: bytes, ranges: Mapping[str, tuple[float, float]], float_outputs: Iterable[str], *, integer_io: bool
) -> Any:
    """Returns the INT8 model object.

    Args:
        data: Float file with named tensors.
        ranges: Lowest and highest value of each activation to be representable.
        float_outputs: Outputs of operators that stay float.
        integer_io: The graph's inputs and outputs are INT8, not float.
    """
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    before, work = _read(data), quantizer.Quantizer(bytearray(data))
    work.update_quantization_recipe(".*", every, _STATIC)
    for name in () if integer_io else (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", name, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for output in (*float_outputs, *saturated_swishes(before, ranges), *beside_constants(before)):
        work.update_quantization_recipe(scope(output), every, algorithm_key=AlgorithmName.NO_QUANTIZE)
    seen = {name: {"min": _tensor(low), "max": _tensor(high)} for name, (low, high) in ranges.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its interpreter warns that keeping all tensors takes memory
        result = work.quantize(seen, enable_progress_bar=False, enable_progress_report=False)
    model = tf.read(bytes(result.quantized_model))
    cap_weight_scales(model)
    _keep_output_names(model, [tf.name_of(before, index) for index in before.subgraphs[0].outputs])
    return model


@lru_cache(maxsize=2)
def _read(data: bytes) -> Any:
    """Returns the model object of a float file, which is written tens of times; it is not changed."""
    return tf.read(data)


def beside_constants(model: Any) -> Iterator[str]:
    """Yields the outputs of operators that would have to share their scale with a constant, as `clamp(min=…)` does."""
    for kind, operator in tf.operators(model):
        values = (tf.constant(model, index) for index in operator.inputs)
        if kind in _ONE_SCALE and any(one is not None and one.dtype == np.float32 for one in values):
            yield tf.name_of(model, operator.outputs[0])


def _keep_output_names(model: Any, names: list[str]) -> None:
    """Gives the graph's outputs their names back, which the tensors before their conversion to float have kept."""
    outputs = [int(index) for index in model.subgraphs[0].outputs]
    for index, one in enumerate(model.subgraphs[0].tensors):
        if index not in outputs and one.name.decode() in names:
            one.name += b"/int8"
    for index, name in zip(outputs, names, strict=True):
        tf.tensor(model, index).name = name.encode()


def _tensor(value: float) -> Any:
    return np.full((1, 1, 1, 1), value, np.float32)

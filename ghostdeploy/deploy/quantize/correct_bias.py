"""Empirical bias correction (Nagel et al. 2019, §4.2; arXiv 1906.04721).

Rounding weights shifts the mean of each output channel, since inputs after a ReLU are not centred. With d = ŷ − y of
a layer's quantized shadow on the same input,

    b'_c = b_c − E[d_c]

over the calibration images. Each layer corrects only its own shift: correcting the shift that arrives from earlier
layers as well would count it once per layer (measured: the network is destroyed in two rounds).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from ghostdeploy.convert.graph.index import OnnxGraph

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.deploy.quantize.layer_errors import LayerErrors


def correct_bias(floating: onnx.ModelProto, errors: Mapping[str, LayerErrors]) -> onnx.ModelProto:
    """Returns the float graph with biases that make up for the shift of each quantized layer.

    Args:
        floating: Float graph; it is copied.
        errors: What the layers' shadows gave, by node name.
    """
    model = copy.deepcopy(floating)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in errors:
            continue
        shift = -errors[node.name].shift / errors[node.name].images
        if len(node.input) > 2:
            name = node.input[2]
            bias = numpy_helper.to_array(constants[name]) if name in constants else None
            if bias is not None and bias.shape == shift.shape:
                constants[name].CopyFrom(numpy_helper.from_array((bias + shift).astype(np.float32), name))
        elif node.op_type == "Conv":
            name = f"{node.name}.bias"
            model.graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), name))
            node.input.append(name)
    return model


_MOST = 1 << 30
"""Integers of biases beyond it are left to the quantizer: it widens weight scales where a bias would not fit."""


def with_biases(quantized: onnx.ModelProto, floating: onnx.ModelProto) -> onnx.ModelProto | None:
    """Returns a Q/DQ graph with the biases of another float graph; None where only a quantizer can do it.

    Args:
        quantized: Copied.
        floating: What it was made from, but for its biases.
    """
    model = copy.deepcopy(quantized)
    ours, theirs = OnnxGraph(floating), OnnxGraph(model)
    layers = {node.name: node for node in theirs.nodes}
    for node in ours.layers():
        if len(node.input) < 3:
            continue
        bias, name = numpy_helper.to_array(ours.constants[node.input[2]]), [*layers[node.name].input, "", ""][2]
        restored = theirs.producer.get(name)
        if restored is None and name in theirs.constants:
            theirs.constants[name].CopyFrom(numpy_helper.from_array(bias, name))
        elif restored is None or not _store(bias, *(theirs.constants[one] for one in restored.input[:2])):
            return None
    return model


def _store(bias: NDArray[np.float32], codes: onnx.TensorProto, scale: onnx.TensorProto) -> bool:
    """Writes a bias as integers; returns False where they are too large."""
    found = (bias.astype(np.float64) / numpy_helper.to_array(scale).astype(np.float64)).round()
    if not (np.abs(found) <= _MOST).all():
        return False
    codes.CopyFrom(numpy_helper.from_array(found.astype(np.int32), codes.name))
    return True

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

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

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

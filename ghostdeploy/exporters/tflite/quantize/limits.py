"""Ratios of scales that XNNPACK accepts.

A layer with input scale s, weight scales w_c and output scale t gives, per output channel,

    code = z + round(r_c · (Σ W·x + b_c)),      r_c = s·w_c/t,      and is accepted while r_c < 256

with whole numbers W, x and b. A channel that never fires on any image has had r_c = 741 in a trained network, after
BatchNorm's division by a variance near 0, and the whole file is refused. Where r_c ≥ 255 one step of the sum moves the
output across all its 256 codes, so

    w'_c = 255·t/s,      b'_c = b_c·w_c/w'_c

changes no code: the sums keep their signs and zeros. A hard swish is accepted while its own ratio s/t stays below 2⁷;
it stays float where its output is practically zero. Elementwise sums and products have ranges too, beyond which the
interpreter's own kernels do the work.
Source: `convolution-nhwc.c` of XNNPACK; `hard_swish` of TensorFlow Lite; all measured with LiteRT 2.3.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.exporters.tflite import file as tf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

LARGEST_RATIO = 255.0
_LARGEST_SWISH_RATIO = 100.0
_INT8, _INT32 = 9, 2


def cap_weight_scales(model: Any) -> int:
    """Brings every ratio of an INT8 model object into the range that XNNPACK takes; changed in place.

    Returns:
        How many output channels were capped.
    """
    count = 0
    for kind, operator in tf.layers(model):
        source, weights, output = (
            tf.tensor(model, i) for i in (tf.data_index(kind, operator), operator.inputs[1], operator.outputs[0])
        )
        if {int(one.type) for one in (source, weights, output)} != {_INT8}:
            continue
        scales = np.asarray(weights.quantization.scale, np.float64)
        limit = LARGEST_RATIO * float(output.quantization.scale[0]) / float(source.quantization.scale[0])
        beyond = scales > limit
        if beyond.any():
            _cap(model, kind, operator, np.where(beyond, limit, scales))
            count += int(beyond.sum())
    return count


def saturated_swishes(model: Any, ranges: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Yields the outputs of hard swishes whose output is as good as zero beside their input.

    Args:
        model: Float model object.
        ranges: Lowest and highest value of each activation.
    """
    for kind, operator in tf.operators(model):
        if kind != "HARD_SWISH":
            continue
        given, made = (tf.name_of(model, index) for index in (operator.inputs[0], operator.outputs[0]))
        if width(ranges[given]) > _LARGEST_SWISH_RATIO * width(ranges[made]):
            yield made


def width(ends: tuple[float, float]) -> float:
    """Returns what lies between two ends."""
    return ends[1] - ends[0]


def _cap(model: Any, kind: str, operator: Any, scales: NDArray[np.float64]) -> None:
    place = 3 if kind == "TRANSPOSE_CONV" else 2
    weights = _own(model, operator, 1)
    before = np.asarray(weights.quantization.scale, np.float64)
    weights.quantization.scale = scales.astype(np.float32)
    if len(operator.inputs) <= place or operator.inputs[place] < 0:
        return
    codes = tf.constant(model, operator.inputs[place])
    bias = _own(model, operator, place)
    if codes is None or int(bias.type) != _INT32:
        return
    bias.quantization.scale = (np.asarray(bias.quantization.scale, np.float64) * scales / before).astype(np.float32)
    buffer = copy.copy(model.buffers[bias.buffer])
    buffer.data = np.rint(codes * (before / scales)).astype(np.int32).view(np.uint8)
    bias.buffer = len(model.buffers)
    model.buffers.append(buffer)


def _own(model: Any, operator: Any, place: int) -> Any:
    """Returns an input of an operator that no other operator reads, with its own quantization."""
    graph, index = model.subgraphs[0], int(operator.inputs[place])
    found = copy.copy(tf.tensor(model, index))
    found.quantization = copy.copy(found.quantization)
    if sum(int(other) == index for one in graph.operators for other in one.inputs) > 1:
        found.name = bytes(tf.tensor(model, operator.outputs[0]).name) + f"/{place}".encode()
        graph.tensors.append(found)
        operator.inputs[place] = len(graph.tensors) - 1
    else:
        graph.tensors[index] = found
    return found

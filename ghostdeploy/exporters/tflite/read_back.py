"""The precision, inputs and outputs of a TFLite graph, read from the written file; needs no torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.convert.attestation import Layer, achieved, executed_phrase
from ghostdeploy.convert.base import Ports, count_phrase
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.layer_costs import macs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ghostdeploy.bundle.manifest import PrecisionAchieved

_FEATURES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 3}
"""Dimension of the weights that the channels of the output, or of a transposed convolution's input, are in."""


def read_precision(path: Path) -> PrecisionAchieved:
    """Reads the layers with weights.

    A layer is INT8 when its data and its weights are: LiteRT's kernels then multiply integers. So they do where the
    weights alone are INT8 and the data is quantized at run time (dynamic range): `int8 weights`.
    """
    model = tf.read(path.read_bytes())
    sources = {int(op.outputs[0]): int(op.inputs[0]) for kind, op in tf.operators(model) if kind == "DEQUANTIZE"}
    layers, stored = [], Counter[str]()
    for kind, operator in tf.operators(model):
        if kind not in tf.WEIGHTED:
            continue
        weights = sources.get(int(operator.inputs[1]), int(operator.inputs[1]))
        data = int(tf.tensor(model, tf.data_index(kind, operator)).type)
        types = (tf.TYPES.get(data, "?"), tf.TYPES.get(int(tf.tensor(model, weights).type), "?"))
        stored[types[1]] += 1
        executed = {("int8", "int8"): "int8", ("float32", "int8"): "int8 weights"}.get(types, "float")
        int8 = types[1] == "int8" and types[0] in ("int8", "float32")
        name = tf.module_name(model, operator, weights)
        work = 0 if kind == "FULLY_CONNECTED" else layer_macs(model, kind, operator)
        layers.append(Layer(name=name, executed=f"{kind} {executed}", int8=int8, macs=work))
    if any(layer.int8 for layer in layers):
        return achieved(layers, how=f"{path.name} holds {executed_phrase(layers)}")
    kinds = Counter(layer.executed.partition(" ")[0] for layer in layers)
    return achieved(layers, how=f"{path.name} holds {count_phrase(kinds)}; their weights are {count_phrase(stored)}")


def layer_macs(model: Any, kind: str, operator: Any) -> int:
    """Returns the MACs of a layer for one image."""
    image = tf.data_index(kind, operator) if kind == "TRANSPOSE_CONV" else int(operator.outputs[0])
    sizes = [int(size) for size in tf.tensor(model, image).shape]
    shape = [int(size) for size in tf.tensor(model, operator.inputs[1]).shape]
    return macs(shape, features=shape[_FEATURES[kind]], image=sizes[1:]) or 0


def ports(model: Any) -> Ports:
    """Returns the inputs and outputs of the main graph."""
    graph = model.subgraphs[0]
    return Ports(inputs=_specs(model, graph.inputs), outputs=_specs(model, graph.outputs))


def _specs(model: Any, indices: Iterable[Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(model, int(index)) for index in indices)


def _spec(model: Any, index: int) -> TensorSpec:
    found = tf.tensor(model, index)
    scale = None if found.quantization is None else found.quantization.scale
    coded = scale is not None and len(scale) > 0
    shape = found.shape if found.shapeSignature is None else found.shapeSignature
    return TensorSpec(
        name=tf.name_of(model, index),
        dtype="float32" if coded else tf.TYPES[found.type],
        shape=tuple(None if size < 0 else int(size) for size in shape),
    )

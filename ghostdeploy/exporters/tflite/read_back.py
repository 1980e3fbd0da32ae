"""The precision, inputs and outputs of a TFLite graph, read from the written file; needs no torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.convert.attestation import Layer, achieved, convolution_macs, executed_phrase
from ghostdeploy.convert.base import Ports, count_phrase
from ghostdeploy.exporters.tflite import file as tf

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ghostdeploy.bundle.manifest import PrecisionAchieved


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
        macs = _macs(model, kind, operator, weights)
        layers.append(Layer(name=name, executed=f"{kind} {executed}", int8=int8, macs=macs))
    if any(layer.int8 for layer in layers):
        return achieved(layers, how=f"{path.name} holds {executed_phrase(layers)}")
    kinds = Counter(layer.executed.partition(" ")[0] for layer in layers)
    return achieved(layers, how=f"{path.name} holds {count_phrase(kinds)}; their weights are {count_phrase(stored)}")


def _macs(model: Any, kind: str, operator: Any, weights: int) -> int | None:
    """Returns the MACs of a convolution for one image, 0 for a linear layer."""
    if kind == "FULLY_CONNECTED":
        return 0
    image = tf.data_index(kind, operator) if kind == "TRANSPOSE_CONV" else int(operator.outputs[0])
    sizes = [int(size) for size in tf.tensor(model, image).shape]
    shape = [int(size) for size in tf.tensor(model, weights).shape]
    if kind == "DEPTHWISE_CONV_2D":  # (1, H, W, C·m)
        shape = [shape[3], *shape[1:3]]
    if kind == "TRANSPOSE_CONV":  # (O, H, W, I): each input element meets O·H·W of them
        return convolution_macs([1, shape[0], *shape[1:3]], sizes)
    return convolution_macs(shape, sizes)


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

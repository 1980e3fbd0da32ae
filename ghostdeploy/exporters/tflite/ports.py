"""The inputs and outputs of a TFLite graph, as runtimes show them: integers that stand for floats are floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.convert.base import Ports
from ghostdeploy.exporters.tflite import file as tf

if TYPE_CHECKING:
    from collections.abc import Iterable


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

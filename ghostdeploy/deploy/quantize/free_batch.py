"""A float graph of a fixed batch with a free one, while it is quantized: ONNX Runtime runs many images at once faster.

What is written has the batch that was asked for. A graph is freed where every tensor keeps its shape but for the batch,
and where several batches together give what each gives by itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from ghostdeploy.convert.graph.file import subgraphs
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.convert.graph.shapes import infer_shapes
from ghostdeploy.deploy.prove.tolerance import FLOAT32_RELATIVE_ERROR
from ghostdeploy.deploy.quantize.activations import image_bytes
from ghostdeploy.deploy.quantize.simulate import GraphRunner

if TYPE_CHECKING:
    from ghostdeploy.batches import Batch

_FREE = "ghostdeploy_images"
MOST_BYTES = 1 << 30
"""Largest size of all activations of the images of one run."""


@dataclass(frozen=True, slots=True)
class Freed:
    """A float graph as it is quantized.

    Attributes:
        model: With a free batch, or as it came.
        batch: Its own one; None where nothing was changed.
        original: The graph as it came.
    """

    model: onnx.ModelProto
    batch: int | None
    original: onnx.ModelProto

    def restore(self, quantized: onnx.ModelProto) -> None:
        """Gives a graph that was made from `model` its batch back, in place."""
        if self.batch is None:
            return
        for value in (*quantized.graph.input, *quantized.graph.output, *quantized.graph.value_info):
            for size in value.type.tensor_type.shape.dim:
                if size.dim_param == _FREE:
                    size.dim_value = self.batch
        before = OnnxGraph(self.original)
        reshapes = {node.name: node for node in before.nodes if node.op_type == "Reshape"}
        constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
        for node in quantized.graph.node:
            if node.name in reshapes and node.input[1] in constants:
                del node.attribute[:]
                node.attribute.extend(reshapes[node.name].attribute)
                constants[node.input[1]].CopyFrom(before.constants[node.input[1]])


def free_batch(model: onnx.ModelProto, images: Batch, together: int) -> Freed:
    """Frees the batch of a graph, where that changes nothing else.

    Args:
        model: Float graph with inferred shapes; not changed.
        images: Different inputs, for the proof.
        together: Images that will be run at once.
    """
    kept, batch = Freed(model, None, model), model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if not 0 < batch < together or any(list(subgraphs(node)) for node in model.graph.node):
        return kept
    activations = [name for node in model.graph.node for name in node.output if name]
    if together * sum(image_bytes(model, activations).values()) > MOST_BYTES:
        return kept
    freed = _freed(model, batch)
    return Freed(freed, batch, model) if _shaped_alike(model, freed, batch) and _same(model, freed, images) else kept


def _freed(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Returns a copy with a free batch: at its inputs, and where a Reshape keeps the batch of what it reads."""
    freed, shapes = copy.deepcopy(model), OnnxGraph(model).shapes
    graph = OnnxGraph(freed)
    for node in graph.nodes:
        target = graph.constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is None or {shapes[name][:1] for name in (node.input[0], node.output[0])} != {(batch,)}:
            continue
        sizes = numpy_helper.to_array(target).copy()
        if 0 not in sizes[1:]:
            sizes[0] = 0  # as it comes
            target.CopyFrom(numpy_helper.from_array(sizes, target.name))
            del node.attribute[:]  # `allowzero`
    order = [value.name for value in freed.graph.value_info]
    del freed.graph.value_info[:]
    for value in freed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = _FREE
    for value in freed.graph.output:
        value.type.tensor_type.ClearField("shape")
    found = {value.name: value for value in infer_shapes(freed, strict=False).graph.value_info}
    ordered = [found[name] for name in order if name in found]
    del freed.graph.value_info[:]
    freed.graph.value_info.extend(ordered)
    return freed


def _shaped_alike(model: onnx.ModelProto, freed: onnx.ModelProto, batch: int) -> bool:
    """Tells whether all tensors of a freed graph are as they were but for the batch, which every output has."""
    now = _sizes(freed)
    same = {name: tuple(batch if size == _FREE else size for size in sizes) for name, sizes in now.items()}
    return same == _sizes(model) and all(now[value.name][:1] == (_FREE,) for value in freed.graph.output)


def _sizes(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    graph = model.graph
    return {
        value.name: tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output, *graph.value_info)
    }


def _same(model: onnx.ModelProto, freed: onnx.ModelProto, images: Batch) -> bool:
    """Tells whether both give the same outputs, to float32 rounding."""
    try:
        pairs = zip(*(GraphRunner(one, fused=True)(images) for one in (model, freed)), strict=True)
    except Exception:  # ONNX Runtime's errors are of a dozen classes under Exception
        return False
    wide = ((np.asarray(one, np.float64), np.asarray(other, np.float64)) for one, other in pairs)  # there may be masks
    return all(np.abs(one - other).max() <= FLOAT32_RELATIVE_ERROR * np.abs(one).max() for one, other in wide)

"""The one index over an ONNX graph: who writes and reads a tensor, which are constant, shapes, layers and their work.

Rules, quantizers, counters and exporters use it; whatever is specific to Q/DQ graphs is in `qdq_lint.graph`. Code
that edits a graph step by step (`deploy.intake.onnx.graph`) keeps none: an index would be stale after each edit.

A *vector* is a tensor with one value per channel, (N, C) or (N, C, 1, 1); a *map* has several.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

import onnx

from ghostdeploy.convert.graph.shapes import without_weights
from ghostdeploy.layer_costs import macs

if TYPE_CHECKING:
    from collections.abc import Iterable

    Shape = tuple[int | None, ...]

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights."""


class OnnxGraph:
    """An index over a model.

    Args:
        model: Read, not changed.

    Attributes:
        nodes: In the order of the file.
        constants: Initializers by name.
        inputs: Names of the graph's inputs.
        outputs: Names of the graph's outputs.
        producer: The node that writes a tensor.
        uses: (node, input index) of every use of a tensor.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._model = model
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.uses: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
        for node in self.nodes:
            for place, name in enumerate(node.input):
                if name:
                    self.uses[name].append((node, place))

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each tensor whose rank is known, inferred where the model carries none; None: an unknown size."""
        known = _shapes(self._model.graph)
        if not all(node.output[0] in known for node in self.nodes):
            known = _shapes(onnx.shape_inference.infer_shapes(without_weights(self._model), data_prop=True).graph)
        return {name: tuple(tensor.dims) for name, tensor in self.constants.items()} | known

    @cached_property
    def _float(self) -> set[str]:
        values = (*self._model.graph.value_info, *self._model.graph.input, *self._model.graph.output)
        return {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Returns the nodes that read a tensor, each once."""
        return list({id(node): node for node, _ in self.uses.get(name, ())}.values())

    def activations(self, nodes: Iterable[onnx.NodeProto]) -> list[str]:
        """Returns the float tensors that the nodes read or write, constants left out, in graph order."""
        names = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name)
        return [name for name in names if self.is_float(name)]

    def is_float(self, name: str) -> bool:
        """Returns whether a tensor holds float32 values that change with the input."""
        return name in self._float and name not in self.constants

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Returns whether a node has constant weights."""
        return node.op_type in LAYERS and len(node.input) > 1 and node.input[1] in self.constants

    def layers(self) -> list[onnx.NodeProto]:
        """Returns the nodes with constant weights."""
        return [node for node in self.nodes if self.is_layer(node)]

    def macs(self, node: onnx.NodeProto) -> int | None:
        """Returns the multiply-accumulates of a layer for one image, None where a size is unknown."""
        weights = self.shapes.get(node.input[1], ())
        image = self.shapes.get(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
        sizes = [size for size in weights if size is not None]
        if image is None or not sizes or len(sizes) < len(weights):
            return None
        if "Conv" in node.op_type:
            return macs(sizes, features=sizes[0], image=image[1:])
        turned = attribute(node, "transB", 0) or len(sizes) == 1
        return macs([sizes[-1 if turned else -2]], features=1, image=image[1:])

    def is_vector(self, name: str) -> bool:
        """Returns whether a tensor has one value per channel."""
        shape = self.shapes.get(name, ())
        return len(shape) == 2 or (len(shape) > 2 and set(shape[2:]) == {1})

    def is_map(self, name: str) -> bool:
        """Returns whether a tensor has several values per channel."""
        return len(self.shapes.get(name, ())) > 2 and not self.is_vector(name)


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Returns an integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def output_axis(node: onnx.NodeProto) -> int:
    """Returns the axis of a layer's weight that counts its output channels."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else 1


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }

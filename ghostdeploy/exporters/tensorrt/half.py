"""The half-precision graph for strongly typed engines: types are in the ONNX graph, not requested from a builder.

    half numbers   11 bits, |x| ≤ 65504, normal from 2^-14; rounding x → h(x) costs at most 2^-11 of a normal x
    a layer fits   no |w| > 65504, and for each output channel   ‖w − h(w)‖ ≤ 2^-9 ‖w‖
    a scale fits   2^-14 ≤ s and 128 s ≤ 65504: the output of a dequantizer is a half number too

Every float32 tensor becomes float16, with these exceptions:

    before the first layer   what is between an input and the first layer or quantizer (normalisation of pixels)
                             keeps float32, so 0 … 255 is normalised in full precision
    a layer that does not fit keeps float32 weights and arithmetic, between two casts
    inputs and outputs       keep the types of the float graph; one cast each

In a Q/DQ graph the scales must have the type of the float side (ONNX opset 19). A scale that does not fit would need
casts between dequantizer and layer, and these would break the fusion into an INT8 kernel; such a graph is left in
float32 as a whole. Overflow of activations cannot be seen in a graph: see `deploy.fold.half_range`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.version_converter
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.convert.graph.index import LAYERS
from ghostdeploy.convert.graph.shapes import element_types
from ghostdeploy.deploy.prove.tolerance import FP16_LARGEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_SCALE_OPSET = 19
_SMALLEST_NORMAL = 2.0**-14
_LARGEST_SCALE = FP16_LARGEST / 128
_RELATIVE_ERROR = 2.0**-9
_KEPT_INPUTS = {"Resize": (1, 2)}
"""Inputs that the operator defines as float32 whatever the type of its data."""


@dataclass(frozen=True)
class Halved:
    """A graph in half precision."""

    model: onnx.ModelProto
    kept: tuple[str, ...] = ()
    """Names of layers that kept float32."""
    refused: str | None = None
    """Why the graph was left in float32; None when it was not."""


def to_half(model: onnx.ModelProto) -> Halved:
    """Writes half precision into a float32 or Q/DQ graph.

    Args:
        model: Not changed; its nodes may be in any order. Constants are initializers; shapes need not be known.

    Returns:
        A new graph with the same inputs, outputs and node names.

    Raises:
        onnx.checker.ValidationError: The result is not a valid graph: a bug here or an operator without half precision.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx_file.sort(copy.graph)
    quantized = any(node.op_type in _QUANTIZERS for node in copy.graph.node)
    if quantized:
        if (unfit := _unfit_scales(copy.graph)) is not None:
            return Halved(copy, refused=unfit)
        if opset_of(copy) < _SCALE_OPSET:
            copy = onnx.version_converter.convert_version(copy, _SCALE_OPSET)
    conversion = _Conversion(copy.graph, element_types(copy))
    conversion.run()
    del copy.graph.value_info[:]
    copy = onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    return Halved(copy, kept=tuple(conversion.kept))


def opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operators that the graph is written in."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def fits(weight: NDArray[Any]) -> bool:
    """Returns whether a layer's weights survive rounding to half precision.

    Args:
        weight: Float32, the first axis is the output channel.
    """
    if not np.isfinite(weight).all() or np.abs(weight).max(initial=0.0) > FP16_LARGEST:
        return False
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    rounded = rows.astype(np.float16).astype(np.float64)
    error = np.linalg.norm(rows - rounded, axis=1)
    return bool((error <= _RELATIVE_ERROR * np.linalg.norm(rows, axis=1)).all())


def _unfit_scales(graph: onnx.GraphProto) -> str | None:
    """Returns a sentence about the first scale outside the normal range of half precision."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _QUANTIZERS:
            continue
        if node.input[1] not in constants:
            return f"the scale of {node.name} is computed"
        scale = numpy_helper.to_array(constants[node.input[1]])
        if (scale < _SMALLEST_NORMAL).any() or (scale > _LARGEST_SCALE).any():
            worst = float(scale.min() if (scale < _SMALLEST_NORMAL).any() else scale.max())
            return f"the scale {worst:.3g} of {node.name} is outside the normal range of half precision"
    return None


class _Conversion:
    """Rewrites one graph in place."""

    def __init__(self, graph: onnx.GraphProto, types: Mapping[str, int]) -> None:
        self.kept: list[str] = []
        self._graph = graph
        self._types = types
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._half: set[str] = set()
        self._done: list[onnx.NodeProto] = []
        self._copies: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        """Decides per node, casts where the types of producer and consumer differ, drops constants nobody reads."""
        nodes = list(self._graph.node)
        wide = self._wide_nodes(nodes)
        for node in nodes:
            self._convert(node, TensorProto.FLOAT if id(node) in wide else TensorProto.FLOAT16)
        read = {name for node in self._done for name in node.input}
        constants = [tensor for tensor in self._constants.values() if tensor.name in read]
        done = list(self._done)
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(done)
        self._graph.initializer.extend(constants)

    def _wide_nodes(self, nodes: list[onnx.NodeProto]) -> set[int]:
        """Returns the identities of the nodes that stay in float32, and fills `kept`."""
        wide: set[int] = set()
        behind: set[str] = set()  # tensors with a layer or quantizer before them
        for node in nodes:
            begins = node.op_type in LAYERS or node.op_type in _QUANTIZERS
            if not begins and behind.isdisjoint(node.input):
                wide.add(id(node))
                continue
            behind.update(node.output)
            weight = self._constants.get(node.input[1]) if node.op_type in LAYERS else None
            if weight is not None and not fits(_by_output_channel(node, numpy_helper.to_array(weight))):
                wide.add(id(node))
                self.kept.append(node.name)
        return wide

    def _convert(self, node: onnx.NodeProto, element: int) -> None:
        """Appends the node in its new type, after the casts that it needs."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        fixed = _KEPT_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name and index not in fixed and self._types.get(name) == TensorProto.FLOAT:
                new.input[index] = self._as(name, element)
        for attribute in new.attribute:
            if new.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = element
        self._done.append(new)
        if element == TensorProto.FLOAT:
            return
        for index, name in enumerate(node.output):
            if self._types.get(name) != TensorProto.FLOAT:
                continue
            self._half.add(name)
            if name in self._outputs:  # the graph promises float32 under this name
                new.output[index] = self._copies[name, TensorProto.FLOAT16] = f"{name}_half"
                self._cast(f"{name}_half", name, TensorProto.FLOAT)
                self._half.discard(name)

    def _as(self, name: str, element: int) -> str:
        """Returns the tensor `name` in the given type, made at its first use."""
        held = TensorProto.FLOAT16 if name in self._half else TensorProto.FLOAT
        if element == held:
            return name
        if (name, element) not in self._copies:
            copy = f"{name}_{'half' if element == TensorProto.FLOAT16 else 'float'}"
            self._copies[name, element] = copy
            if name in self._constants:
                values = numpy_helper.to_array(self._constants[name])
                self._constants[copy] = numpy_helper.from_array(values.astype(np.float16), copy)
            else:
                self._cast(name, copy, element)
        return self._copies[name, element]

    def _cast(self, source: str, result: str, element: int) -> None:
        self._done.append(helper.make_node("Cast", [source], [result], f"{result}_cast", to=element))


def _by_output_channel(node: onnx.NodeProto, weight: NDArray[Any]) -> NDArray[Any]:
    """Returns the weight with the axis that one scale would serve in front: the output channel."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    first = node.op_type == "Conv" or (node.op_type == "Gemm" and transposed)
    return weight if first else np.moveaxis(weight, 1 if weight.ndim > 1 else 0, 0)

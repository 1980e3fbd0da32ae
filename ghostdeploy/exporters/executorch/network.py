"""An ONNX graph as a PyTorch module, whose weights are constants in the form in which PyTorch's layers read them.

`torch.export` then records the same graph in ATen operations: sizes and axes are read while it records, and a weight
that ONNX keeps transposed is transposed here, once. ExecuTorch computes a weight that is the result of an operation
anew at every call: that made a network 60 times slower.

A Q/DQ pair becomes the same pair of PyTorch's decomposed operators. Data of 8 bits without sign, q with zero point z,
are q − 128 with z − 128, the same numbers: XNNPACK's integers have a sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import nn

from ghostdeploy.convert.base import RefusedError, listed
from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph
from ghostdeploy.exporters.executorch import layers, operators, quantized
from ghostdeploy.exporters.executorch.call import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx
    from numpy.typing import NDArray

_KNOWN = {**operators.OPERATORS, **layers.OPERATORS, **quantized.OPERATORS}
_PLAIN = ("", "ai.onnx")


class OnnxNetwork(nn.Module):
    """Computes what an ONNX graph does.

    Args:
        model: With fixed sizes.

    Raises:
        RefusedError: Operators that have no form here; they are named.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._graph = graph = OnnxGraph(model)
        require_known(graph.nodes)
        self._static = {name: numpy_helper.to_array(tensor) for name, tensor in graph.constants.items()}
        self._static |= {node.output[0]: _value(node) for node in graph.nodes if node.op_type == "Constant"}
        self._integers = quantized.integer_layers(graph, self._static)
        self._static |= quantized.restored(graph, self._static)
        self._nodes = [node for node in graph.nodes if node.output[0] not in self._static]
        self._attributes = {node.output[0]: _attributes(node) for node in self._nodes}
        self._constants: dict[str, str] = {}
        for node in self._nodes:
            for place, name in enumerate(node.input):
                if name in self._static:
                    self._register(node, place)

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Returns the outputs in the order of the graph."""
        values: dict[str, Any] = dict(zip(self._graph.inputs, inputs, strict=True))
        for node in self._nodes:
            if node.op_type == "DequantizeLinear":
                continue
            found = _KNOWN[node.op_type](self._call(node, values))
            results = found if isinstance(found, (list, tuple)) else [found]
            values |= dict(zip(node.output, results, strict=False))
        return [self._read(name, values) for name in self._graph.outputs]

    def _read(self, name: str, values: Mapping[str, Any]) -> Any:
        """Returns a tensor for one reader: XNNPACK's patterns begin with a dequantization that nobody else reads."""
        maker = self._graph.producer.get(name)
        if name in self._static:
            return tensor_of(self._static[name])
        if maker is None or maker.op_type != "DequantizeLinear":
            return values.get(name)
        return quantized.dequantize(self._call(maker, values))

    def _call(self, node: onnx.NodeProto, values: Mapping[str, Any]) -> Call:
        given = [
            self.get_buffer(self._constants[_key(node, place)]) if name in self._static else self._read(name, values)
            for place, name in enumerate(node.input)
        ]
        if (own := self._integers.get(node.output[0])) is not None:
            named = self._constants[_key(node, 1)]
            scales, zeros = self.get_buffer(f"{named}_scales"), self.get_buffer(f"{named}_zeros")
            given[1] = quantized.dequantized(given[1], scales, zeros, own.axis)
        static = [self._static.get(name) for name in node.input]
        return Call(node=node, given=given, static=static, attributes=self._attributes[node.output[0]])

    def _register(self, node: onnx.NodeProto, place: int) -> None:
        key, array = _key(node, place), self._static[node.input[place]]
        own = self._integers.get(node.output[0])
        if key in self._constants:
            return
        name = self._constants[key] = f"constant_{len(self._constants)}"
        if own is not None and place == 1:
            self.register_buffer(f"{name}_scales", tensor_of(own.scales))
            self.register_buffer(f"{name}_zeros", torch.zeros(len(own.scales), dtype=torch.int64))
            array = own.codes
        elif own is not None and place == 2:
            array = (array * own.shrink).astype(np.float32)
        elif place == 1 and node.op_type in LAYERS and quantized.is_turned(node):
            array = array.swapaxes(-1, -2) if array.ndim > 1 else array
        self.register_buffer(name, tensor_of(array))


def require_known(nodes: Iterable[onnx.NodeProto]) -> None:
    """Checks that all operators have a form here.

    Raises:
        RefusedError: Names those that have none.
    """
    unknown = [
        f"{node.op_type} at {node.name or node.output[0]}"
        for node in nodes
        if node.op_type != "Constant" and (node.op_type not in _KNOWN or node.domain not in _PLAIN)
    ]
    if unknown:
        raise RefusedError(f"ghostdeploy cannot write {listed(unknown)} for ExecuTorch")


def tensor_of(array: NDArray[Any]) -> torch.Tensor:
    """Returns a copy of an array as a tensor."""
    return torch.from_numpy(np.array(array, order="C"))


def _key(node: onnx.NodeProto, place: int) -> str:
    """Returns what is the same for all that read a constant in the same form."""
    form = node.output[0] if node.op_type in LAYERS and place > 0 else ""
    return f"{node.input[place]} {form}"


def _value(node: onnx.NodeProto) -> NDArray[Any]:
    """Returns the value of a `Constant`."""
    kind, value = next(iter(_attributes(node).items()))
    if kind == "value":
        found: NDArray[Any] = numpy_helper.to_array(value)
        return found
    return np.asarray(value, np.float32 if "float" in kind else np.int64)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}

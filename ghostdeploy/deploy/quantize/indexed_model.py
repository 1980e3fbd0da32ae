"""ONNX Runtime's model wrapper with indexes: the quantizer looks for every name among all constants and all nodes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ghostdeploy.telemetry import silent

with silent():
    from onnxruntime.quantization.onnx_model import ONNXModel

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx


class IndexedModel(ONNXModel):  # type: ignore[misc]  # ONNX Runtime has no types
    """Does what its base does, for a quantizer that adds nodes and constants and removes none before it is done.

    Args:
        model: Changed in place by the quantizer.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            self._register(node)

    def add_initializer(self, tensor: onnx.TensorProto) -> None:
        """Adds a constant unless there is one of that name."""
        if tensor.name not in self._constants:
            self.initializer_extend([tensor])

    def initializer_extend(self, inits: Iterable[onnx.TensorProto]) -> None:
        """Adds constants."""
        graph = self.model.graph
        for tensor in inits:
            graph.initializer.append(tensor)
            self._constants[tensor.name] = graph.initializer[-1]

    def get_initializer(self, name: str) -> onnx.TensorProto | None:
        """Returns a constant, None where there is none of that name."""
        return self._constants.get(name)

    def add_node(self, node: onnx.NodeProto) -> None:
        """Adds a node."""
        super().add_node(node)
        self._register(self.model.graph.node[-1])

    def replace_input_of_all_nodes(self, old_input_name: str, new_input_name: str) -> None:
        """Lets all readers of one tensor read another one."""
        for node in self._readers.pop(old_input_name, ()):
            self.replace_node_input(node, old_input_name, new_input_name)
            self._readers[new_input_name].append(node)

    def _register(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            self._readers[name].append(node)

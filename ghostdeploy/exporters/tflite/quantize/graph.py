"""Layers of a float TFLite graph with roles and units, found by structure; see `quantize.blocks` for the words."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ghostdeploy.deploy.quantize.blocks import common_prefix
from ghostdeploy.deploy.quantize.quantization import LayerFacts
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.exporters.tflite.read_back import layer_macs

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLOAT = 0
_MOVES = ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "STRIDED_SLICE", "SLICE", "SPLIT")


class TFLiteGraph:
    """A float model with named tensors.

    Args:
        model: Model object, see `tflite_file.read`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._readers: dict[int, list[tuple[str, Any]]] = defaultdict(list)
        self._producer: dict[int, tuple[str, Any]] = {}
        for kind, operator in tf.operators(model):
            for index in operator.inputs:
                self._readers[int(index)].append((kind, operator))
            for index in operator.outputs:
                self._producer[int(index)] = (kind, operator)

    def activations(self) -> list[str]:
        """Returns the float tensors that are not constants: the inputs first, then in the order of their operators."""
        graph = self.model.subgraphs[0]
        places = dict.fromkeys([*map(int, graph.inputs), *self._producer])
        return [tf.name_of(self.model, i) for i in places if tf.tensor(self.model, i).type == _FLOAT]

    def shared_scales(self) -> list[tuple[str, ...]]:
        """Returns the inputs and output of every concatenation, and of what only moves values."""
        behind = set(self.behind_layers())
        moving = ("CONCATENATION", "RESHAPE", "PAD", "MAX_POOL_2D", "STRIDED_SLICE", "SLICE", "TRANSPOSE")
        return [
            tuple(tf.name_of(self.model, i) for i in self._floats(kind, op))
            for kind, op in tf.operators(self.model)
            if kind in moving and tf.name_of(self.model, op.outputs[0]) not in behind
        ]

    def layers(self) -> list[LayerFacts]:
        """Returns the layers with weights, in order."""
        unit, role = {}, {}
        for cheap, primary in self._ghost_modules():
            unit[cheap] = unit[primary] = common_prefix(primary, cheap)
            role[cheap], role[primary] = "cheap", "primary"
        found = []
        for kind, operator in tf.layers(self.model):
            name = self.module_of(operator)
            found.append(
                LayerFacts(
                    name=name,
                    role=role.get(name) or _plain_role(self.model, kind, operator),
                    unit=unit.get(name, name),
                    macs=layer_macs(self.model, kind, operator),
                    source=tf.name_of(self.model, tf.data_index(kind, operator)),
                )
            )
        return found

    def behind_layers(self) -> list[str]:
        """Returns the outputs of the operators that no layer reads, see `deploy.quantize.heads`."""
        layers = [operator for _, operator in tf.layers(self.model) if not self._is_expectation(operator)]
        kept, waiting = {id(operator) for operator in layers}, [int(i) for one in layers for i in one.inputs]
        while waiting:
            made_by = self._producer.get(waiting.pop())
            if made_by is not None and id(made_by[1]) not in kept:
                kept.add(id(made_by[1]))
                waiting += map(int, made_by[1].inputs)
        behind = [operator for _, operator in tf.operators(self.model) if id(operator) not in kept]
        return [tf.name_of(self.model, index) for operator in behind for index in operator.outputs]

    def _is_expectation(self, operator: Any) -> bool:
        """Returns whether a layer has one output and reads a softmax: it is a mean over bins."""
        if tf.tensor(self.model, operator.outputs[0]).shape[-1] != 1:
            return False
        made_by = self._producer.get(int(operator.inputs[0]))
        while made_by is not None and made_by[0] in _MOVES:
            made_by = self._producer.get(int(made_by[1].inputs[0]))
        return made_by is not None and made_by[0] == "SOFTMAX"

    def module_of(self, operator: Any) -> str:
        """Returns the PyTorch module of a layer."""
        return tf.module_name(self.model, operator, operator.inputs[1])

    def outputs(self) -> dict[str, str]:
        """Returns the tensor that each layer writes, by module."""
        return {
            self.module_of(operator): tf.name_of(self.model, operator.outputs[0])
            for _, operator in tf.layers(self.model)
        }

    def _floats(self, kind: str, operator: Any) -> list[int]:
        inputs = operator.inputs if kind == "CONCATENATION" else operator.inputs[:1]
        return [int(i) for i in (*inputs, *operator.outputs) if tf.tensor(self.model, i).type == _FLOAT]

    def _ghost_modules(self) -> Iterator[tuple[str, str]]:
        """Yields (cheap, primary) of every Ghost module."""
        for kind, operator in tf.layers(self.model):
            source, output = tf.data_index(kind, operator), int(operator.outputs[0])
            grouped = kind == "DEPTHWISE_CONV_2D"
            beside = {int(i) for k, reader in self._readers[output] if k == "CONCATENATION" for i in reader.inputs}
            made_by = self._producer.get(source)
            if grouped and source in beside and made_by is not None and made_by[0] == "CONV_2D":
                yield self.module_of(operator), self.module_of(made_by[1])


def _plain_role(model: Any, kind: str, operator: Any) -> str:
    if kind == "FULLY_CONNECTED":
        return "linear"
    if kind == "DEPTHWISE_CONV_2D":
        return "depthwise"
    shape = [int(size) for size in tf.tensor(model, operator.inputs[1]).shape]
    channels = int(tf.tensor(model, tf.data_index(kind, operator)).shape[3])
    if kind == "CONV_2D" and shape[3] != channels:
        return "grouped"
    return "pointwise" if shape[1:3] == [1, 1] else "convolution"

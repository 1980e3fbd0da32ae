"""Looking inside a TFLite payload; with the tools of `ai-edge-litert`, which the older tflite-runtime lacks.

A cut is a file of its own: the operators between, the given tensors as inputs, the wanted ones as outputs, all weights
as they are. Padding belongs to the layer that reads it. LiteRT's own way, `experimental_preserve_all_tensors`, shows
nothing of what the XNNPACK delegate computes, and takes no tensor inside. Maps have their channels last here; integers
go through their scale:

    x = s·(q − z)        q = clip(round(x/s) + z)
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.machine import engine_threads
from ghostdeploy.runtimes.probe import Probe, Step, channels_last, channels_second, in_pieces
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.runtimes.probe import Floats

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_PADDING = ("PAD", "PADV2")
_WEIGHT = "/weight"
_EMPTY = schema.BufferT()


class TFLiteProbe(Probe):
    """One file.

    Args:
        data: `model.tflite`.
    """

    engine = f"litert {version('ai-edge-litert')}"

    def __init__(self, data: bytes) -> None:
        self._model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
        for buffer in self._model.buffers:
            if buffer.data is not None:
                buffer.data = np.array(buffer.data, np.uint8)  # as a list it is written byte by byte
        graph = self._model.subgraphs[0]
        self._places = {_name(graph, index): index for index in range(len(graph.tensors))}
        self._graph_inputs = [int(index) for index in graph.inputs]
        self._batch = int(graph.tensors[self._graph_inputs[0]].shape[0])
        inputs, outputs = ([_name(graph, int(index)) for index in ends] for ends in (graph.inputs, graph.outputs))
        super().__init__(list(self._read_steps(graph)), inputs, dict(zip(outputs, outputs, strict=True)))

    def _read_steps(self, graph: Any) -> Iterator[Step]:
        changing, unpacked, padded = set(self._graph_inputs), dict[int, int](), dict[int, int]()
        for operator in graph.operators:
            kind = str(flatbuffer_utils.opcode_to_name(self._model, operator.opcodeIndex))
            given, made = ([int(index) for index in ends] for ends in (operator.inputs, operator.outputs))
            reads = [index for index in given if index in changing]
            if not reads:  # weights in half precision, restored
                unpacked |= dict.fromkeys(made, given[0])
                continue
            changing.update(made)
            if kind in _PADDING:
                padded[made[0]] = given[0]
                continue
            data = given[2 if kind == "TRANSPOSE_CONV" else 0] if kind in _WEIGHTED else -1
            layer = data in changing and given[1] not in changing
            name = _name(graph, made[0])
            if layer:
                weights = bytes(graph.tensors[unpacked.get(given[1], given[1])].name or b"").decode()
                name = weights.removesuffix(_WEIGHT) or name
            read = tuple(dict.fromkeys(_name(graph, padded.get(index, index)) for index in reads))
            yield Step(name=name, reads=read, writes=tuple(_name(graph, index) for index in made), layer=layer)

    def run(self, given: Floats, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Probe.run`."""
        read = self._needed(given, wanted)
        with hushed():
            engine = Interpreter(model_content=self._cut(read, wanted), num_threads=engine_threads())
            engine.allocate_tensors()
        inputs = dict(zip(read, engine.get_input_details(), strict=True))
        outputs, count = engine.get_output_details(), len(next(iter(given.values())))
        columns: list[list[NDArray[Any]]] = [[] for _ in wanted]
        for piece in in_pieces({name: given[name] for name in read}, self._batch):
            for name, array in piece.items():
                engine.set_tensor(inputs[name]["index"], self._encoded(name, array, inputs[name]))
            engine.invoke()
            for column, detail in zip(columns, outputs, strict=True):
                column.append(_decoded(engine.get_tensor(detail["index"]), detail))
        return {name: np.concatenate(column)[:count] for name, column in zip(wanted, columns, strict=True)}

    def _needed(self, given: Floats, wanted: Sequence[str]) -> list[str]:
        """Returns the given tensors that the wanted ones depend on, in their order."""
        found = {name for one in wanted for name in self.between(given, one).sources}
        return [name for name in given if name in found]

    def _cut(self, given: Sequence[str], wanted: Sequence[str]) -> bytes:
        model, graph = copy.copy(self._model), copy.copy(self._model.subgraphs[0])
        model.subgraphs, model.signatureDefs, graph.tensors = [graph], None, list(graph.tensors)
        known = {self._places[name] for name in given}
        ends = {self._places[name]: self._places[name] for name in wanted}
        for place in known & ends.keys():  # computed as well: under another name
            ends[place] = len(graph.tensors)
            graph.tensors.append(copy.copy(graph.tensors[place]))
            graph.tensors[-1].name = bytes(graph.tensors[place].name or b"") + b"/alone"
        graph.inputs = np.array([self._places[name] for name in given], np.int32)
        graph.outputs = np.array([ends[self._places[name]] for name in wanted], np.int32)
        needed, kept = set(ends), list[Any]()
        for operator in reversed(graph.operators):
            if needed & (made := {int(index) for index in operator.outputs}):
                needed = (needed - made) | ({int(index) for index in operator.inputs} - known)
                kept.insert(0, _writing(operator, ends))
        graph.operators = kept
        read = {int(index) for operator in kept for index in operator.inputs if index >= 0}
        buffers = {int(graph.tensors[index].buffer) for index in read}
        model.buffers = [one if place in buffers else _EMPTY for place, one in enumerate(model.buffers)]
        model.metadata = None
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))

    def _encoded(self, name: str, values: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
        # Inputs are given as the manifest has them.
        ordered = np.ascontiguousarray(values) if name in self.inputs else channels_last(values, nhwc=True)
        scale, zero = detail["quantization"]
        if not scale or ordered.dtype == detail["dtype"]:
            return ordered.astype(detail["dtype"])
        ends = np.iinfo(detail["dtype"])
        codes: NDArray[Any] = np.clip(np.rint(ordered / np.float32(scale)) + zero, ends.min, ends.max)
        return codes.astype(detail["dtype"])


def _writing(operator: Any, places: dict[int, int]) -> Any:
    """Returns an operator with other places for what it writes."""
    found = copy.copy(operator)
    found.outputs = np.array([places.get(int(index), int(index)) for index in operator.outputs], np.int32)
    return found


def _decoded(codes: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    scale, zero = detail["quantization"]
    values = (codes.astype(np.float32) - np.float32(zero)) * np.float32(scale) if scale else codes
    return channels_second(values, nhwc=True)


def _name(graph: Any, index: int) -> str:
    """Returns the name of a tensor, its place where it has none."""
    return bytes(graph.tensors[index].name or b"").decode() or f"#{index}"


def open_probe(bundle: Bundle) -> TFLiteProbe:
    """Opens the payload of a bundle."""
    return TFLiteProbe(bundle.read(bundle.manifest.payload))

"""Looking inside an OpenVINO payload.

A cut is a copy of the model whose given tensors are parameters and whose wanted ones are results. FakeQuantize belongs
to who reads it: given in front of it, a value is rounded by the file's own steps, and the layer runs in integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.machine import engine_threads
from ghostdeploy.runtimes.openvino.runtime import IN_FLOAT, in_float, read_graph
from ghostdeploy.runtimes.probe import Probe, Step, in_pieces
from ghostdeploy.telemetry import silent

with silent():
    import openvino
    from openvino import opset15

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.runtimes.probe import Floats

_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_ROUNDING = "FakeQuantize"
_BARE = "/WithoutBiases"
_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}


class OpenVINOProbe(Probe):
    """One model.

    Args:
        core: OpenVINO.
        model: As it was read.
        precision: Of the bundle: it is computed as its runtime computes it.
    """

    engine = f"openvino {openvino.__version__.partition('-')[0]}"

    def __init__(self, core: Any, model: Any, precision: str) -> None:
        self._core, self._model = core, model
        self._config = _CONFIG | (IN_FLOAT if in_float("CPU", precision) else {})
        self._places: dict[str, tuple[int, int]] = {}
        """Tensor → operator and output, by the order of the operators, which copies keep."""
        self._fixed: set[str] = set()
        steps = list(self._read_steps(model.get_ordered_ops()))
        inputs = [port.get_any_name() for port in model.inputs]
        first = model.inputs[0].get_partial_shape()[0]
        self._batch = None if first.is_dynamic else int(first.get_length())
        outputs = {port.get_any_name(): _key(port.get_node().input_value(0)) for port in model.outputs}
        super().__init__(steps, inputs, {name: self._before_rounding(key) for name, key in outputs.items()})

    def _read_steps(self, ops: Sequence[Any]) -> Iterator[Step]:
        self._rounded: dict[str, str] = {}
        for place, op in enumerate(ops):
            kind, values = op.get_type_name(), list(op.input_values())
            writes = tuple(_key(port) for port in op.outputs())
            self._places |= {name: (place, index) for index, name in enumerate(writes)}
            if kind in ("Parameter", "Result"):
                continue
            reads = [name for value in values if (name := _key(value)) not in self._fixed]
            if not reads:
                self._fixed.update(writes)
                continue
            if kind == _ROUNDING:
                self._rounded[writes[0]] = self._before_rounding(reads[0])
                continue
            layer = kind in _WEIGHTED and _key(values[1]) in self._fixed and _key(values[0]) not in self._fixed
            before = tuple(dict.fromkeys(map(self._before_rounding, reads)))
            yield Step(
                name=_layer_name(op) if layer else op.get_friendly_name(), reads=before, writes=writes, layer=layer
            )

    def _before_rounding(self, name: str) -> str:
        return self._rounded.get(name, name)

    def run(self, given: Floats, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Probe.run`."""
        model, read = self._cut(list(given), wanted)
        compiled = self._core.compile_model(model, "CPU", self._config | {"INFERENCE_NUM_THREADS": engine_threads()})
        request, count = compiled.create_infer_request(), len(next(iter(given.values())))
        columns: list[list[NDArray[Any]]] = [[] for _ in wanted]
        for piece in in_pieces({name: given[name] for name in read}, self._batch):
            request.infer({place: np.ascontiguousarray(array) for place, array in enumerate(piece.values())})
            for column, place in zip(columns, range(len(wanted)), strict=True):
                column.append(np.array(request.get_output_tensor(place).data, np.float32))
        pairs = zip(wanted, columns, strict=True)
        return {name: np.concatenate(column)[:count] for name, column in pairs}

    def _cut(self, given: Sequence[str], wanted: Sequence[str]) -> tuple[Any, list[str]]:
        """Returns a model and the given tensors that it reads, in the order of its inputs."""
        model = self._model.clone()
        ops = model.get_ordered_ops()
        parameters = dict(zip(self.inputs, model.get_parameters(), strict=True))
        ends = [ops[place].output(index) for place, index in (self._places[name] for name in wanted)]
        for name in given:
            if name in self.inputs:
                continue
            place, index = self._places[name]
            port = ops[place].output(index)
            parameters[name] = opset15.parameter(port.get_partial_shape(), port.get_element_type())
            port.replace(parameters[name].output(0))
        results = [opset15.result(port) for port in ends]
        reached = _reached(results)
        read = [name for name in given if parameters[name].get_name() in reached]
        return openvino.Model(results, [parameters[name] for name in read], "cut"), read


def _reached(results: Sequence[Any]) -> set[str]:
    """Returns the names of all operators that results depend on."""
    found, open_ends = set[str](), list(results)
    while open_ends:
        op = open_ends.pop()
        if op.get_name() not in found:
            found.add(op.get_name())
            open_ends += [value.get_node() for value in op.input_values()]
    return found


def _key(port: Any) -> str:
    """Returns the name of a tensor: operator and output."""
    node, place = port.get_node(), port.get_index()
    name = str(node.get_friendly_name())
    return f"{name}:{place}" if place else name


def _layer_name(op: Any) -> str:
    """Returns the PyTorch module of a layer, which a transposed convolution leaves to the sum with its bias."""
    name = str(op.get_friendly_name())
    readers = list(op.output(0).get_target_inputs())
    if name.startswith(f"{op.get_type_name()}_") and len(readers) == 1:
        return str(readers[0].get_node().get_friendly_name())
    return name.removesuffix(_BARE)


def open_probe(bundle: Bundle) -> OpenVINOProbe:
    """Opens the payload of a bundle."""
    core = openvino.Core()
    return OpenVINOProbe(core, read_graph(core, bundle), bundle.manifest.precision)

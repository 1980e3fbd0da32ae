"""Looking inside an ONNX payload; needs the `onnx` package, which a device does not have.

A cut is a graph of its own: the nodes between, their constants, the given tensors as inputs, the wanted ones as
outputs. In a Q/DQ graph the tensor between two layers is the integer one, between QuantizeLinear and DequantizeLinear:
there ONNX Runtime's integer kernels meet, so that asking for it changes none of them. Its values are

    x = s·(q − z)        q = clip(round(x/s) + z)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ghostdeploy.machine import engine_threads
from ghostdeploy.runtimes.probe import Probe, Step, in_pieces
from ghostdeploy.telemetry import silent

with silent():
    import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.runtimes.probe import Floats

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANTIZE, _RESTORE = "QuantizeLinear", "DequantizeLinear"
_ERRORS_ONLY = 3
_ALONE = "/alone"
"""End of the name of a tensor that is given and computed as well."""


class OnnxProbe(Probe):
    """One graph.

    Args:
        data: `model.onnx`.
        simulate: Run Q/DQ pairs as the float arithmetic that they are, not in integers.
    """

    engine = f"onnxruntime {ort.__version__}"

    def __init__(self, data: bytes, *, simulate: bool = False) -> None:
        self._simulate = simulate
        self._model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data), data_prop=True)
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._types = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        self._scales = {
            node.output[0]: tuple(numpy_helper.to_array(self._constants[name]) for name in node.input[1:3])
            for node in graph.node
            if node.op_type == _QUANTIZE and all(name in self._constants for name in node.input[1:3])
        }
        self._fixed = self._independent_of_inputs()
        inputs = [value.name for value in graph.input if value.name not in self._constants]
        first = self._types[inputs[0]].type.tensor_type.shape.dim[0]
        self._batch = int(first.dim_value) or None
        outputs = {value.name: value.name for value in graph.output}
        super().__init__(list(self._read_steps()), inputs, outputs)

    def _independent_of_inputs(self) -> set[str]:
        """Returns the tensors that are the same for every image: constants, and what is computed of them alone."""
        fixed = set(self._constants)
        for node in self._model.graph.node:
            if all(name in fixed for name in node.input if name):
                fixed.update(node.output)
        return fixed

    def _read_steps(self) -> Any:
        for node in self._model.graph.node:
            if self._fixed.issuperset(node.output) or (node.op_type == _RESTORE and node.input[0] in self._scales):
                continue
            reads = tuple(dict.fromkeys(self._stored(name) for name in node.input if name and name not in self._fixed))
            layer = node.op_type in _WEIGHTED and node.input[1] in self._fixed and node.input[0] not in self._fixed
            yield Step(name=node.name or node.output[0], reads=reads, writes=tuple(node.output), layer=layer)

    def _stored(self, name: str) -> str:
        """Returns the integer tensor that a float one is restored from, else its own name."""
        maker = self._makers.get(name)
        restored = maker is not None and maker.op_type == _RESTORE and maker.input[0] in self._scales
        return str(maker.input[0]) if restored and maker is not None else name

    def run(self, given: Floats, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Probe.run`."""
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = engine_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", str(int(self._simulate)))
        session = ort.InferenceSession(
            self._cut(list(given), wanted).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["WeightBiasQuantization"],
        )
        read = {value.name for value in session.get_inputs()}
        coded = {name: self._encoded(name, array) for name, array in given.items() if name in read}
        found: list[list[NDArray[Any]]] = [session.run(None, one) for one in in_pieces(coded, self._batch)]
        count = len(next(iter(given.values())))
        columns = zip(wanted, zip(*found, strict=True), strict=True)
        return {name: self._decoded(name, np.concatenate(column)[:count]) for name, column in columns}

    def _cut(self, given: Sequence[str], wanted: Sequence[str]) -> onnx.ModelProto:
        needed, open_ends, known = set[str](), list(wanted), set(given)
        while open_ends:
            node = self._makers.get(open_ends.pop())
            if node is None or node.output[0] in needed:
                continue
            needed.update(node.output)
            open_ends += [one for one in node.input if one and one not in known]
        made = {name: f"{name}{_ALONE}" if name in known else name for name in wanted}
        nodes = [_writing(node, made) for node in self._model.graph.node if node.output[0] in needed]
        read = {name for node in nodes for name in node.input}
        graph = onnx.helper.make_graph(
            nodes,
            "cut",
            [self._types[name] for name in given if name in read],
            [self._named(name, made[name]) for name in wanted],
            [tensor for name, tensor in self._constants.items() if name in read],
        )
        model = onnx.helper.make_model(graph, opset_imports=self._model.opset_import, functions=self._model.functions)
        model.ir_version = self._model.ir_version
        return model

    def _named(self, name: str, new: str) -> onnx.ValueInfoProto:
        if name not in self._types:
            return onnx.helper.make_empty_tensor_value_info(new)
        found = onnx.ValueInfoProto()
        found.CopyFrom(self._types[name])
        found.name = new
        return found

    def _encoded(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if name not in self._scales:
            return values
        scale, zero = self._scales[name]
        ends = np.iinfo(zero.dtype)
        codes: NDArray[Any] = np.clip(np.rint(values / scale) + zero, ends.min, ends.max).astype(zero.dtype)
        return codes

    def _decoded(self, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
        if name in self._scales:
            scale, zero = self._scales[name]
            values = (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return np.ascontiguousarray(values, np.float32)


def _writing(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """Returns a node with other names for what it writes."""
    if all(names.get(name, name) == name for name in node.output):
        return node
    found = onnx.NodeProto()
    found.CopyFrom(node)
    found.output[:] = [names.get(name, name) for name in node.output]
    return found


def open_probe(bundle: Bundle) -> OnnxProbe:
    """Opens the payload of a bundle."""
    return OnnxProbe(bundle.read(bundle.manifest.payload))

"""TFLite files as objects: read, name, pack.

Names. The converter calls tensors by position. A layer is recognised by its weights: a convolution's are transposed and
nothing else, so the sorted values of a constant and of a PyTorch parameter are equal byte for byte. The layer's output
gets the name of the PyTorch module, `blocks.3.0.se.conv_reduce`, other tensors that of their operator and number.

Size. The object packer writes a zero point of 8 bytes for each channel of each tensor, all zero: 150 kB of a 1.6 MB
file. Equal vectors are written once here, shapes among them; the format allows any number of references to one.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np

from ghostdeploy.convert.module_names import dotted_names, module_of, numbered
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert.tools import flatbuffer_utils

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Operators with weights. `TRANSPOSE_CONV` has them second as well: its first input is a shape."""
_IDENTIFIER = b"TFL3"
TYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    15: "uint32",
    16: "uint16",
}
"""NumPy names of tensor types; others have none."""


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
    """Writes equal small NumPy vectors once."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 - the packer's own name
        """Returns the place of a vector with the values of `x`."""
        if x.dtype == np.uint8:  # data of a buffer, which has its own alignment
            return int(super().CreateNumpyVector(x))
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = int(super().CreateNumpyVector(x))
        return self._written[key]


def read(data: bytes) -> Any:
    """Returns the model object of a file's bytes."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.array(buffer.data, np.uint8)
    return model


def pack(model: Any) -> bytes:
    """Returns the file of a model object."""
    for one in model.subgraphs[0].tensors:
        one.shape = np.asarray(one.shape, np.int32)
        if one.shapeSignature is not None:
            one.shapeSignature = np.asarray(one.shapeSignature, np.int32)
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def operators(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields the kind (`CONV_2D`) and the object of every operator of the main graph, in order."""
    for operator in model.subgraphs[0].operators:
        yield str(flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)), operator


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields the operators with constant weights."""
    for kind, operator in operators(model):
        if kind in WEIGHTED and constant(model, operator.inputs[1]) is not None:
            yield kind, operator


def tensor(model: Any, index: int) -> Any:
    """Returns a tensor of the main graph."""
    return model.subgraphs[0].tensors[index]


def name_of(model: Any, index: int) -> str:
    """Returns a tensor's name."""
    return bytes(tensor(model, index).name or b"").decode()


def constant(model: Any, index: int) -> NDArray[Any] | None:
    """Returns the values of a constant tensor, None for an activation and for an input that is left out (−1)."""
    if index < 0:
        return None
    found = tensor(model, index)
    data = model.buffers[found.buffer].data
    if data is None or not len(data) or found.type not in TYPES:
        return None
    return np.frombuffer(data.tobytes(), TYPES[found.type]).reshape([int(size) for size in found.shape])


def set_constant(model: Any, operator: Any, place: int, values: NDArray[Any]) -> None:
    """Gives an operator a constant float input of its own, of the same size; others may share the one it had."""
    graph, found = model.subgraphs[0], copy.copy(tensor(model, operator.inputs[place]))
    data = np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
    if len(data) != len(model.buffers[found.buffer].data):
        raise ValueError(f"{found.name!r} has {len(model.buffers[found.buffer].data)} bytes, got {len(data)}")
    if sum(index == operator.inputs[place] for one in graph.operators for index in one.inputs) > 1:
        found.name = bytes(tensor(model, operator.outputs[0]).name) + f"/{place}".encode()
        graph.tensors.append(found)
        operator.inputs[place] = len(graph.tensors) - 1
    else:
        graph.tensors[operator.inputs[place]] = found
    buffer = copy.copy(model.buffers[found.buffer])
    buffer.data, found.buffer = data, len(model.buffers)
    model.buffers.append(buffer)


def drop_unused(model: Any) -> None:
    """Empties the buffers that no tensor refers to."""
    used = {int(one.buffer) for one in model.subgraphs[0].tensors} | {int(m.buffer) for m in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def drop_repeated_names(model: Any) -> None:
    """Takes the names of weights and biases away where they repeat the output's; only quantizers need them."""
    for kind, operator in operators(model):
        if kind not in WEIGHTED:
            continue
        stem = name_of(model, operator.outputs[0])
        for index in operator.inputs:
            if index >= 0 and name_of(model, index).startswith(f"{stem}/"):
                tensor(model, index).name = None


def data_index(kind: str, operator: Any) -> int:
    """Returns the tensor that a layer's weights are multiplied with."""
    return int(operator.inputs[2 if kind == "TRANSPOSE_CONV" else 0])


def resize_from_the_corner(model: Any) -> None:
    """Makes nearest-neighbour resizes read in[floor(i·n/m)], as PyTorch's `nearest` does; changed in place.

    The converter reads in[floor((i + ½)·n/m)]: the same values for whole factors, others for 3 → 7, the gates of
    GhostNetV2 and V3 at 224 px. `nearest-exact` does not become this operator.
    """
    for kind, operator in operators(model):
        if kind == "RESIZE_NEAREST_NEIGHBOR":
            operator.builtinOptions.halfPixelCenters = False


def fingerprint(values: NDArray[Any]) -> bytes:
    """Returns the hash of an array that is independent of transposition: of its sorted values."""
    return hashlib.sha256(np.sort(values, axis=None).tobytes()).digest()


def owners_of(parameters: Mapping[str, NDArray[Any]], modules: Sequence[str]) -> dict[bytes, str | None]:
    """Returns the PyTorch module of each weight, by the weight's fingerprint.

    Args:
        parameters: Of the program, by name.
        modules: Dotted names of the PyTorch modules.
    """
    dotted = dotted_names(modules)
    return {fingerprint(values): module_of(name, dotted) for name, values in parameters.items() if values.ndim > 1}


def name_tensors(
    model: Any,
    owners: Mapping[bytes, str | None],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Gives every tensor its own name, and the graph's inputs and outputs those of the job.

    Args:
        model: Changed in place.
        owners: See `owners_of`.
        inputs: Names of the graph's inputs, in order.
        outputs: Names of its outputs, in order.
    """
    graph = model.subgraphs[0]
    names: dict[int, str] = dict(zip(map(int, graph.inputs), inputs, strict=True))
    names |= zip(map(int, graph.outputs), outputs, strict=True)
    taken = {*inputs, *outputs}
    for kind, operator in operators(model):
        weights = constant(model, operator.inputs[1]) if kind in WEIGHTED else None
        module = None if weights is None else owners.get(fingerprint(weights))
        name = numbered(module or f"{kind.lower()}_{int(operator.outputs[0])}", taken)
        taken.add(name)
        for place, index in enumerate(map(int, operator.outputs)):
            names.setdefault(index, f"{name}:{place}" if place else name)
        if weights is not None:
            # The output of the last layer is called like the graph's output; weights keep the module's name.
            names.setdefault(int(operator.inputs[1]), f"{name}/weight")
            if len(operator.inputs) > 2 and kind != "TRANSPOSE_CONV" and operator.inputs[2] >= 0:
                names.setdefault(int(operator.inputs[2]), f"{name}/bias")
    for index, one in enumerate(graph.tensors):
        one.name = names.get(index, f"constant_{index}").encode()
    for signature in model.signatureDefs or ():
        for side in (signature.inputs, signature.outputs):
            for entry in side:
                entry.name = graph.tensors[entry.tensorIndex].name


def module_name(model: Any, operator: Any, weights: int) -> str:
    """Returns the PyTorch module of a layer, as `name_tensors` wrote it.

    Args:
        model: The model object.
        operator: The layer.
        weights: Its weights as they are stored.
    """
    return name_of(model, weights).removesuffix("/weight") or name_of(model, operator.outputs[0])

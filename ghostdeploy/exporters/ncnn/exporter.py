"""ncnn files from the ONNX payload, by pnnx; `fp16` stores the weights in half precision, `int8` as integers.

The layers are named after their PyTorch modules: pnnx drops the names of the ONNX graph, and a layer is identified by
its weights. The Input layers describe the image, see `runtimes.ncnn.param`. Pixels reach ncnn as the floats of
their values, so the conversion at the start of such a graph is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.convert.attestation import Layer as Executed
from ghostdeploy.convert.attestation import achieved, executed_phrase
from ghostdeploy.convert.base import Ports, RefusedError, Written, count_phrase
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.convert.graph.index import OnnxGraph, output_axis
from ghostdeploy.exporters.ncnn import pnnx
from ghostdeploy.exporters.ncnn.graph import pair_axes, pool_maxima, take_floats
from ghostdeploy.exporters.ncnn.quantized import Integers, integers_of
from ghostdeploy.exporters.ncnn.weights import Arrays, in_half, unpack
from ghostdeploy.runtimes.ncnn import param
from ghostdeploy.runtimes.ncnn.costs import INT8, WEIGHTS, costs_of
from ghostdeploy.runtimes.ncnn.engine import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import PrecisionAchieved
    from ghostdeploy.convert.base import ExportJob

MOST_DIMENSIONS = 4
"""Of a blob, which is one image."""


class NcnnExporter:
    """`model.onnx` → `model.param` + `model.bin`."""

    tools = ("ncnn", "pnnx", "onnx")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = onnx.load(job.source)
        ports = onnx_file.ports(model)
        take_floats(model)
        pool_maxima(model)
        pair_axes(model)
        integers = integers_of(model) if job.precision == "int8" else {}
        layers, data = pnnx.convert(lambda path: onnx_file.write(model, path), ".onnx", shapes_of(ports))
        layers = pnnx.named(layers, job.input_names, job.output_names)
        layers = with_inputs(layers, ports.inputs)
        if job.precision != "fp32" or is_readable(layers, data):
            layers, data = stored(layers, data, model, integers, job.precision)
        return write(layers, data, Path(job.folder), ports.outputs, batch=ports.inputs[0].shape[0])


def is_readable(layers: Sequence[param.Layer], data: bytes) -> bool:
    """Returns whether all layers that read weights are known here; only then they are given their modules' names."""
    try:
        unpack(layers, data)
    except RefusedError:
        return False
    return True


def stored(
    layers: Sequence[param.Layer], data: bytes, model: onnx.ModelProto, integers: dict[str, Integers], precision: str
) -> tuple[list[param.Layer], bytes]:
    """Returns named layers and their weights in a precision.

    Raises:
        RefusedError: See `unpack`.
    """
    arrays = unpack(layers, data)
    names = names_of(model)
    found, weights = [], []
    for layer, one in zip(layers, arrays, strict=True):
        known = names[content(one)] if one.weights is not None else []
        name = known.pop(0) if known else layer.name
        layer = layer._replace(name=name.replace(" ", "_"))
        if name in integers:
            layer, one = integers[name].applied(layer, one)
        found.append(layer)
        weights.append(one)
    if precision == "fp16":
        weights = in_half(weights)
    return found, b"".join(one.packed() for one in weights)


def content(arrays: Arrays) -> bytes:
    """Returns what identifies a layer: the bytes of its float32 weights."""
    return b"" if arrays.weights is None else arrays.weights.tobytes()


def names_of(model: onnx.ModelProto) -> dict[bytes, list[str]]:
    """Returns the names of layers by the bytes of their weights as ncnn has them, in the order of the graph."""
    graph = OnnxGraph(model)
    found = defaultdict(list)
    for node in graph.layers():
        weights = numpy_helper.to_array(graph.constants[node.input[1]])
        if node.op_type in ("Gemm", "MatMul"):
            weights = weights if output_axis(node) == 0 else weights.T
        elif node.op_type == "ConvTranspose":
            weights = weights.swapaxes(0, 1)
        found[weights.tobytes()].append(node.name)
    return found


def shapes_of(ports: Ports) -> list[tuple[int, ...]]:
    """Returns the shapes to convert inputs for; a free batch is 1.

    Raises:
        RefusedError: An input has another free size, or more dimensions than a blob.
    """
    found = []
    for spec in ports.inputs:
        batch, *sizes = spec.shape
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes) or not 1 <= len(sizes) <= MOST_DIMENSIONS:
            raise RefusedError(
                f"ncnn takes images of 1 to {MOST_DIMENSIONS} fixed dimensions; {spec.name} is {spec.shape}"
            )
        found.append((batch or 1, *known))
    return found


def with_inputs(layers: Sequence[param.Layer], inputs: Sequence[TensorSpec]) -> list[param.Layer]:
    """Returns the layers with the image's type and sizes in the Input layers, in the order of `inputs`."""
    specs = {spec.name: spec for spec in inputs}
    own = {layer.outputs[0]: layer for layer in layers if layer.kind == "Input"}
    first = [
        param.with_shape(own[name], tuple(size or 0 for size in spec.shape[1:]), spec.dtype)
        for name, spec in specs.items()
    ]
    return [*first, *(layer for layer in layers if layer.kind != "Input")]


def write(
    layers: Sequence[param.Layer], data: bytes, folder: Path, outputs: Sequence[TensorSpec], *, batch: int | None
) -> Written:
    """Writes the payload, opens it as the runtime does, and runs one image of zeros.

    Raises:
        RefusedError: ncnn does not open it, or gives outputs of other sizes.
    """
    text = param.render(list(layers))
    try:
        network = Network(text, data, threads=1, keep=True)
        blobs = network.run(network.zeros(), [spec.name for spec in outputs])
    except (ValueError, RuntimeError) as error:
        raise RefusedError(f"ncnn cannot load what pnnx wrote: {error}") from error
    for spec, blob in zip(outputs, blobs, strict=True):
        if prod(size or 0 for size in spec.shape[1:]) != blob.size:
            raise RefusedError(f"ncnn returns {spec.name} as {blob.shape} for one image, expected {spec.shape[1:]}")
    (folder / "model.param").write_text(text, "utf-8", newline="\n")
    (folder / "model.bin").write_bytes(data)
    inputs = tuple(
        TensorSpec(name=layer.outputs[0], dtype=param.dtype_of(layer), shape=(batch, *param.shape_of(layer)))
        for layer in network.inputs
    )
    given = tuple(TensorSpec(name=spec.name, dtype="float32", shape=spec.shape) for spec in outputs)
    return Written(precision=read_precision(network, data), ports=Ports(inputs=inputs, outputs=given))


def read_precision(network: Network, data: bytes) -> PrecisionAchieved:
    """Reads the layers with weights of a file: ncnn multiplies integers where the file has scales for data and weights.

    Args:
        network: Opened with `keep`.
        data: Its weights.
    """
    layers = [layer for layer in network.layers if layer.kind in WEIGHTS]
    kinds = Counter(layer.kind for layer in layers)
    if not any(layer.number(INT8) for layer in layers):
        types = count_phrase(Counter(_types(network.layers, data)))
        how = f"model.param holds {count_phrase(kinds)}; their weights are {types}"
        return achieved([Executed(name=layer.name, executed="", int8=False, macs=0) for layer in layers], how=how)
    work = {cost.name: cost.macs for cost in costs_of(network, 1)}
    found = [
        Executed(
            name=layer.name,
            executed=f"{layer.kind} {'int8' if layer.number(INT8) else 'float'}",
            int8=bool(layer.number(INT8)),
            macs=0 if layer.kind == "InnerProduct" else work[layer.name],
        )
        for layer in layers
    ]
    return achieved(found, how=f"model.param holds {executed_phrase(found)}")


def _types(layers: Sequence[param.Layer], data: bytes) -> list[Any]:
    try:
        return [one.weights.dtype.name for one in unpack(layers, data) if one.weights is not None]
    except RefusedError:
        return ["float32" for layer in layers if layer.kind in WEIGHTS]

"""ExecuTorch programs from the ONNX payload: `fp16` computes in half precision, `int8` with the graph's Q/DQ pairs.

The program is lowered by ExecuTorch, and what its XNNPACK delegate does not take is left to ExecuTorch's own kernels.
It is read back, opened as a device opens it, and run on zeros before it is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ghostdeploy.convert.base import RefusedError, Written
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph
from ghostdeploy.exporters.executorch.graph import share_scales, write_hard_sigmoids
from ghostdeploy.exporters.executorch.lowering import NamedPorts, lower
from ghostdeploy.exporters.executorch.network import OnnxNetwork, tensor_of
from ghostdeploy.exporters.executorch.read_back import ports, read_precision
from ghostdeploy.runtimes.executorch import contents
from ghostdeploy.runtimes.executorch.engine import Network
from ghostdeploy.streams import hushed

if TYPE_CHECKING:
    from ghostdeploy.bundle.manifest import TensorSpec
    from ghostdeploy.convert.base import ExportJob


class ExecuTorchExporter:
    """`model.onnx` → `model.pte`."""

    tools = ("torch", "executorch", "torchao", "onnx")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = onnx.shape_inference.infer_shapes(onnx.load(job.source), data_prop=True)
        given = onnx_file.ports(model)
        write_hard_sigmoids(model)
        share_scales(model)
        network: Any = OnnxNetwork(model)
        half = job.precision == "fp16"
        if half:
            network = network.half()
        named = NamedPorts(network, [spec.name for spec in given.outputs], half=half)
        data = lower(named, {spec.name: tensor_of(zeros(spec)) for spec in given.inputs}, layers_of(model))
        return write(data, Path(job.folder))


def write(data: bytes, folder: Path) -> Written:
    """Writes the payload, after it was opened as the runtime opens it, and run on zeros.

    Raises:
        RefusedError: ExecuTorch does not load or run it.
    """
    try:
        network = Network(data, threads=1)
        with hushed():
            network.run([np.zeros(shape, kind) for kind, shape in network.inputs])
    except (ValueError, RuntimeError) as error:
        raise RefusedError(f"ExecuTorch cannot load what it lowered: {error}") from error
    found = Written(precision=read_precision(contents.read(data)), ports=ports(network))
    network.close()
    (folder / "model.pte").write_bytes(data)
    return found


def layers_of(model: onnx.ModelProto) -> list[tuple[str, int]]:
    """Returns name and number of weights of every layer, of a float graph or a Q/DQ graph."""
    graph = OnnxGraph(model)
    sizes = {name: int(np.prod(tensor.dims)) for name, tensor in graph.constants.items()}
    sizes |= {
        node.output[0]: sizes[node.input[0]]
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes
    }
    layers = [node for node in graph.nodes if node.op_type in LAYERS and node.input[1] in sizes]
    return [(node.name, sizes[node.input[1]]) for node in layers]


def zeros(spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Returns an input of zeros.

    Raises:
        RefusedError: It has a free size.
    """
    if any(size is None for size in spec.shape):
        raise RefusedError(f"ExecuTorch's XNNPACK delegate takes fixed sizes; {spec.name} is {spec.shape}")
    return np.zeros([size or 0 for size in spec.shape], spec.dtype)

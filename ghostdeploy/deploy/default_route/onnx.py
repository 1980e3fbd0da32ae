"""Default ONNX: `torch.onnx.export` as its documentation calls it, with the weights in the one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from ghostdeploy.deploy.default_route.model import Artefact, leave, open_source
from ghostdeploy.exporters.base import Written
from ghostdeploy.exporters.graph_precision import read_precision
from ghostdeploy.manifest import TensorSpec

if TYPE_CHECKING:
    from ghostdeploy.exporters.base import ExportJob


class DefaultOnnx:
    """Module → `model.onnx`."""

    tools = ("torch", "onnx", "onnxscript")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        module, example = open_source(job)
        path = Path(job.folder) / "model.onnx"
        # One file, where the default is two: a bundle of this target has one. ONNX Runtime runs both alike.
        torch.onnx.export(module, (example,), path, dynamo=True, external_data=False)
        graph = onnx.load(path).graph
        inputs, outputs = (tuple(_spec(value) for value in values) for values in (graph.input, graph.output))
        leave(job, Artefact(inputs=inputs, outputs=outputs, precision="fp32"))
        return Written(precision=read_precision(path))


def _spec(value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)

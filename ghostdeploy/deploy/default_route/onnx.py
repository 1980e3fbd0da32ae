"""Default ONNX: `torch.onnx.export` as its documentation calls it, with the weights in the one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from ghostdeploy.deploy.default_route.model import Artefact, leave, open_source
from ghostdeploy.exporters import onnx_file
from ghostdeploy.exporters.base import Written
from ghostdeploy.exporters.graph_precision import read_precision

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
        ports = onnx_file.ports(onnx.load(path))
        leave(job, Artefact(inputs=ports.inputs, outputs=ports.outputs, precision="fp32"))
        return Written(precision=read_precision(path))

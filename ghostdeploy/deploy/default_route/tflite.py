"""Default TFLite: `litert_torch.convert(module, args).export(path)`; the payload takes images as the module does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.deploy.default_route.model import Artefact, leave, open_source
from ghostdeploy.exporters import tflite_file
from ghostdeploy.exporters.base import Written
from ghostdeploy.exporters.tflite_ports import ports
from ghostdeploy.exporters.tflite_precision import read_precision
from ghostdeploy.telemetry import silent

with silent():
    import litert_torch

if TYPE_CHECKING:
    from ghostdeploy.exporters.base import ExportJob


class DefaultTFLite:
    """Module → `model.tflite`."""

    tools = ("torch", "litert-torch", "ai-edge-litert")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        module, example = open_source(job)
        path = Path(job.folder) / "model.tflite"
        litert_torch.convert(module, (example,)).export(str(path))
        found = ports(tflite_file.read(path.read_bytes()))
        leave(job, Artefact(inputs=found.inputs, outputs=found.outputs, precision="fp32"))
        return Written(precision=read_precision(path))

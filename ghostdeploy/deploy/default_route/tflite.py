"""Default TFLite: `litert_torch.convert(module, args).export(path)`; the payload takes images as the module does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.deploy.default_route.model import Artefact, leave, open_source
from ghostdeploy.exporters.base import Written
from ghostdeploy.exporters.tflite_precision import read_precision
from ghostdeploy.manifest import TensorSpec
from ghostdeploy.telemetry import silent

with silent():
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

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
        engine = Interpreter(str(path))
        inputs, outputs = (
            tuple(_spec(detail) for detail in details)
            for details in (engine.get_input_details(), engine.get_output_details())
        )
        leave(job, Artefact(inputs=inputs, outputs=outputs, precision="fp32"))
        return Written(precision=read_precision(path))


def _spec(detail: dict[str, Any]) -> TensorSpec:
    shape = tuple(int(size) for size in detail["shape"])
    return TensorSpec(name=detail["name"], dtype=np.dtype(detail["dtype"]).name, shape=shape)

"""Default OpenVINO IR: `openvino.convert_model` of the module, `openvino.save_model` with its half-precision weights.

`save_model` compresses the weights to half precision unless told otherwise; the runtime computes in float32 all the
same. Without `input=` batch, height and width of the IR would be dynamic, which costs time in each call: the shape is
given, as OpenVINO's own examples do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.deploy.default_route.model import Artefact, leave, open_source
from ghostdeploy.exporters.base import Written
from ghostdeploy.telemetry import silent

if TYPE_CHECKING:
    from ghostdeploy.exporters.base import ExportJob


class DefaultOpenVINO:
    """Module → `model.xml` + `model.bin`."""

    tools = ("torch", "openvino")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        with silent():
            import openvino

        from ghostdeploy.exporters.openvino import ports, read_precision

        module, example = open_source(job)
        model = openvino.convert_model(module, example_input=example, input=[list(example.shape)])
        for ends, names in ((model.inputs, "input"), (model.outputs, "logits")):
            _name(ends, names)
        path = Path(job.folder) / "model.xml"
        openvino.save_model(model, path)
        found = ports(model)
        leave(job, Artefact(inputs=found.inputs, outputs=found.outputs, precision="fp16"))
        return Written(precision=read_precision(openvino.Core(), path))


def _name(ends: list[Any], stem: str) -> None:
    """Gives names to tensors that the converter left without; a runtime asks for tensors by name."""
    for index, port in enumerate(ends):
        if not port.get_names():
            port.get_tensor().set_names({stem if len(ends) == 1 else f"{stem}_{index}"})

"""Default OpenVINO IR: `openvino.convert_model` of the module, `openvino.save_model` with its half-precision weights.

`save_model` compresses the weights to half precision by default; the runtime computes in float32 all the
same. Without `input=` batch, height and width of the IR would be dynamic, which costs time in each call: the shape is
given, as OpenVINO's own examples do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.convert.base import Written
from ghostdeploy.exporters.openvino.exporter import ports, read_precision
from ghostdeploy.telemetry import silent

with silent():
    import openvino

if TYPE_CHECKING:
    from pathlib import Path


class DefaultOpenVINO:
    """Module → `model.xml` + `model.bin`."""

    tools = ("torch", "openvino")

    def write(self, module: Any, example: Any, folder: Path) -> Written:
        """See `DefaultConverter.write`."""
        model = openvino.convert_model(module, example_input=example, input=[list(example.shape)])
        for ends, names in ((model.inputs, "input"), (model.outputs, "logits")):
            _name(ends, names)
        path = folder / "model.xml"
        openvino.save_model(model, path)
        return Written(precision=read_precision(openvino.Core(), path), ports=ports(model), stored="fp16")


def _name(ends: list[Any], stem: str) -> None:
    """Gives names to tensors that the converter left without; a runtime looks tensors up by name."""
    for index, port in enumerate(ends):
        if not port.get_names():
            port.get_tensor().set_names({stem if len(ends) == 1 else f"{stem}_{index}"})

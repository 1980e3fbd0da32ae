"""OpenVINO IR from the ONNX payload; `fp16` stores the weights in half precision.

`openvino.convert_model` is not used: `Core.read_model` reads ONNX as well and has no telemetry.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from ghostdeploy.exporters.base import Written, count_phrase
from ghostdeploy.manifest import PrecisionAchieved

if TYPE_CHECKING:
    from ghostdeploy.exporters.base import ExportJob

_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")


class OpenVINOExporter:
    """`model.onnx` → `model.xml` + `model.bin`."""

    tools = ("openvino",)

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        core = openvino.Core()
        model = core.read_model(job.source)
        path = Path(job.folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=job.precision == "fp16")
        return Written(precision=read_precision(core, path))


def read_precision(core: Any, path: Path) -> PrecisionAchieved:
    """Counts the layers with weights in the written IR by the stored type of their weights."""
    layers = [op for op in core.read_model(path).get_ordered_ops() if op.get_type_name() in _WEIGHTED]
    kinds = Counter(op.get_type_name() for op in layers)
    weights = Counter(stored_type(op.input_value(1)) for op in layers)
    return PrecisionAchieved(
        int8_layers=0,
        float_layers=len(layers),
        how=f"{path.name} holds {count_phrase(kinds)}; their weights are stored as {count_phrase(weights)}",
    )


def stored_type(value: Any) -> str:
    """Returns the element type of the constant behind `value`, through conversions and reshapes."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return str(node.get_element_type().to_string()) if node.get_type_name() == "Constant" else "computed"

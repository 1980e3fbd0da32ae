"""The making of a payload: the parent's ONNX graph, compressed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import version_converter

from ghostdeploy.convert.base import Written
from ghostdeploy.convert.graph import file
from ghostdeploy.convert.graph.precision import read_precision
from ghostdeploy_toy import payload

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob

OPSET = 21
"""The evaluator has Q/DQ operators from 19 on."""


class ToyExporter:
    """`model.onnx` → `model.toy`."""

    tools = ("onnx",)

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = onnx.load(job.source)
        payload.write(version_converter.convert_version(model, OPSET), Path(job.folder))
        return Written(precision=read_precision(Path(job.source), executed=False), ports=file.ports(model))

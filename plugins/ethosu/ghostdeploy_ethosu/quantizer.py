"""The quantizer of TFLite graphs with integer inputs and outputs: a float one leaves the processor a conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.exporters.tflite.quantize import worker

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob, Written


class Quantizer:
    """Float `model.tflite` → INT8 `model.tflite` that takes and gives INT8."""

    tools = worker.Quantizer.tools

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        settings = job.settings | {"int8_io": True}
        return worker.Quantizer().export(msgspec.structs.replace(job, settings=settings))

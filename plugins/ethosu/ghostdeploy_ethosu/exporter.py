"""The payload: what Vela makes of the INT8 file, and that file beside it, which is what can be run here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.convert.base import Written
from ghostdeploy.exporters.tflite import file as tflite_file
from ghostdeploy.exporters.tflite.read_back import ports, read_precision
from ghostdeploy_ethosu.configuration import Configuration
from ghostdeploy_ethosu.vela import compile_file

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob


class EthosUExporter:
    """INT8 `model.tflite` → `model_vela.tflite`."""

    tools = ("ethos-u-vela",)

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        source, folder = Path(job.source), Path(job.folder)
        data = source.read_bytes()
        compiled = compile_file(data, Configuration.of(job.settings))
        (folder / "model_vela.tflite").write_bytes(compiled.data)
        (folder / "model.tflite").write_bytes(data)
        return Written(
            precision=read_precision(source),
            ports=ports(tflite_file.read(data)),
            placement=compiled.placement,
            estimates=compiled.estimates,
        )

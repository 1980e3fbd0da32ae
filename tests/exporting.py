"""Lets the exporter of a row convert a graph of `bundles`, as an export does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.convert.base import ExportJob, Written
from ghostdeploy.convert.graph import file

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from ghostdeploy.target import Target
    from tests.bundles import Tiny


def write_exported(model: onnx.ModelProto, folder: Path, precision: str, tiny: Tiny, *, row: Target) -> Written:
    """Lets the row's exporter convert the graph, as an export does after its parent."""
    source = folder / "source.onnx"
    file.write(model, source)
    job = export_job(source, folder, precision, tiny)
    written = targets.resolve(row.exporter, requirement=row.export_requirement)().export(job)
    source.unlink()
    return written


def export_job(source: Path, folder: Path, precision: str, tiny: Tiny) -> ExportJob:
    """Returns the job of an exporter."""
    return ExportJob(
        source=str(source),
        folder=str(folder),
        result="",
        precision=precision,
        input_names=tuple(spec.name for spec in tiny.inputs),
        output_names=tuple(spec.name for spec in tiny.outputs),
        dynamic_batch=tiny.batch is None,
        batch=tiny.batch,
    )

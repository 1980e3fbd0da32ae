"""C from the ONNX payload: sources, weights and a compiled library for each instruction set that was asked for.

`hybrid` has the weights of memory-bound layers as INT8, as the graph stores them. What was compiled is loaded and asked
for its layers, and run on zeros, before the export is done.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import onnx

from ghostdeploy.convert.base import Written
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.exporters.native.attestation import read_back
from ghostdeploy.exporters.native.build import build, library_name
from ghostdeploy.exporters.native.described import describe
from ghostdeploy.exporters.native.ends import finished
from ghostdeploy.exporters.native.operators import lower
from ghostdeploy.exporters.native.options import levels_of
from ghostdeploy.exporters.native.plan import make_plan
from ghostdeploy.exporters.native.rounding import require_safe
from ghostdeploy.exporters.native.source import Source
from ghostdeploy.runtimes.native.program import PLAN, WEIGHTS

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob
    from ghostdeploy.exporters.native.plan import Plan

SOURCES, LIBRARIES = "source", "lib"
_FLOATS = "ghost_floats.c"
"""Stands in for the kernels of bytes."""


class NativeExporter:
    """`model.onnx` → C, and libraries."""

    tools = ("onnx",)

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = onnx.shape_inference.infer_shapes(onnx.load(job.source), data_prop=True)
        ports = onnx_file.ports(model)
        lowered = lower(model)
        steps, inputs, outputs = finished(lowered)
        require_safe(steps)
        plan = make_plan(steps, inputs, outputs)
        source, folder = Source(plan, inputs, outputs), Path(job.folder)
        in_bytes = any(step.touches_bytes for group in plan.groups for step in group.steps)
        sources = write_sources(source.model, folder / SOURCES, in_bytes=in_bytes)
        (folder / WEIGHTS).write_bytes(source.weights)
        levels = levels_of(job.settings.get("arch"), integers=job.precision == "int8")
        (folder / LIBRARIES).mkdir()
        libraries = {level: f"{LIBRARIES}/{library_name(level)}" for level in levels}
        for level, name in libraries.items():
            build([one for one in sources if one.suffix == ".c" and one.name != "main.c"], level, folder / name)
        program = describe(plan, ports, (inputs, outputs), lowered.maps, libraries, source)
        (folder / PLAN).write_bytes(msgspec.json.format(msgspec.json.encode(program)) + b"\n")
        return Written(
            precision=read_back(folder, program),
            files=(*libraries.values(), *(f"{SOURCES}/{one.name}" for one in sources)),
            ports=ports,
            scheme=_scheme(plan) if job.precision == "hybrid" else None,
        )


def write_sources(model: str, folder: Path, *, in_bytes: bool = True) -> list[Path]:
    """Writes the sources of a network; returns them in order of their names.

    Args:
        model: `model.c`.
        folder: To be made.
        in_bytes: It has maps of bytes; else it goes without their kernels.
    """
    folder.mkdir()
    kernels = resources.files("ghostdeploy.exporters.native").joinpath("kernels")
    for one in kernels.iterdir():
        left_out = one.name == _FLOATS if in_bytes else one.name.endswith("_int8.c")
        if one.name.endswith((".c", ".h")) and not left_out:
            (folder / one.name).write_bytes(one.read_bytes())
    (folder / "model.c").write_text(model, "utf-8", newline="\n")
    return sorted(folder.iterdir())


def _scheme(plan: Plan) -> str:
    count = sum(step.codes is not None for group in plan.groups for step in group.steps)
    return f"weights int8 symmetric per channel on {count} memory-bound layers, float32 elsewhere"

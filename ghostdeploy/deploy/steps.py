"""The steps of an export: which worker processes run, in which order, each on the file of the step before.

    fp32, fp16    program.pt2 → onnx → openvino
    int8          program.pt2 → onnx (float) → quantize-openvino → openvino

A target's own steps are its chain of parents; a quantized precision puts the quantizer of the row's recipe behind the
first graph, and further targets convert from the quantized graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy import targets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ghostdeploy.targets import Target

PROGRAM = "program.pt2"
QUANTIZED = frozenset({"int8"})
"""Precisions whose graph the quantizer makes."""
QUANTIZER = "ghostdeploy.deploy.quantize.worker:Quantizer"


@dataclass(frozen=True, slots=True)
class Step:
    """One worker process."""

    name: str
    """Name of its folder in the workspace, and on progress bars."""
    exporter: str
    """Import string of its worker."""
    export_extra: str
    """The pip extra that brings what it needs."""
    source: str
    """File it reads, relative to the workspace."""
    precision: str
    recipe: str | None = None
    """Set for a quantizer."""
    target: str | None = None
    """Row of the target table, for an exporter."""

    @property
    def label(self) -> str:
        """Name of the stage on progress bars."""
        return f"convert to {self.name}" if self.recipe is None else "quantize"


def steps_to(row: Target, precision: str) -> list[Step]:
    """Returns the steps that lead to the payload of `row`, in order."""
    found: list[Step] = []
    for link in targets.chain(row):
        source = f"{found[-1].name}/{_payload(found[-1])}" if found else PROGRAM
        quantized = precision in QUANTIZED
        own = "fp32" if quantized and not found else precision
        found.append(Step(link.name, link.exporter, link.export_extra, source, own, target=link.name))
        if quantized and len(found) == 1:
            name = f"quantize-{row.recipe}"
            graph = f"{link.name}/{link.payload}"
            found.append(Step(name, QUANTIZER, link.export_extra, graph, precision, recipe=row.recipe))
    return found


def all_steps(rows: Iterable[Target], precision: str) -> dict[str, Step]:
    """Returns the steps to all rows, each once, by name, in order."""
    return {step.name: step for row in rows for step in steps_to(row, precision)}


def _payload(step: Step) -> str:
    return "model.onnx" if step.target is None else targets.find(step.target).payload

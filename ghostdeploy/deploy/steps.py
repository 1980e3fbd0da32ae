"""The steps of an export: which worker processes run, in which order, each on the file of the step before.

    fp32, fp16    program.pt2 → onnx → openvino
    int8          program.pt2 → onnx (float) → quantize-openvino → openvino
    from ONNX     program.onnx → onnx → openvino

A target's own steps are its chain of parents; a quantized precision puts the quantizer of the row's recipe behind the
first graph, and further targets convert from the quantized graph. Where a finished file is the model, the first step is
the intake of its row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ghostdeploy import targets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ghostdeploy.targets import Target

PROGRAM = "program.pt2"
QUANTIZED = frozenset({"int8"})
"""Precisions whose graph the quantizer makes."""
JUDGED_ON_IMAGES = QUANTIZED | {"hybrid"}
"""Precisions whose agreement with the float model is measured on real images."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    target: str
    """Row of the target table whose payload, or float graph, it writes."""
    payload: str
    """File it writes that the next step reads."""
    layout: str | None = None
    """Order of image dimensions in it, where that is not the program's."""
    recipe: str | None = None
    """Set for a quantizer."""

    @property
    def result(self) -> str:
        """The payload, relative to the workspace."""
        return f"{self.name}/{self.payload}"

    @property
    def label(self) -> str:
        """Name of the stage on progress bars."""
        return f"convert to {self.name}" if self.recipe is None else "quantize"


def steps_to(row: Target, precision: str, intake: Target | None = None) -> list[Step]:
    """Returns the steps that lead to the payload of `row`, in order.

    Args:
        row: The target.
        precision: One of its precisions.
        intake: Row whose finished file is the model; None is the PyTorch graph.
    """
    found: list[Step] = []
    for link in targets.chain(row):
        source = found[-1].result if found else program_file(intake)
        quantized = precision in QUANTIZED
        own = "fp32" if quantized and not found else precision
        exporter, extra = link.exporter, link.export_extra
        if not found and intake is not None and intake.intake is not None:
            exporter, extra = intake.intake.exporter, intake.intake.extra
        step = Step(
            name=link.name,
            exporter=exporter,
            export_extra=extra,
            source=source,
            precision=own,
            layout=link.layout,
            payload=link.payload,
            target=link.name,
        )
        found.append(step)
        if quantized and len(found) == 1:
            name, recipe = f"quantize-{row.recipe}", row.recipe
            found.append(
                replace(step, name=name, exporter=row.quantizer, source=step.result, precision=precision, recipe=recipe)
            )
    return found


def all_steps(rows: Iterable[Target], precision: str, intake: Target | None = None) -> dict[str, Step]:
    """Returns the steps to all rows, each once, by name, in order; see `steps_to`."""
    return {step.name: step for row in rows for step in steps_to(row, precision, intake)}


def program_file(intake: Target | None) -> str:
    """Returns the name of the file that the first step reads."""
    return PROGRAM if intake is None or intake.intake is None else f"program{intake.intake.suffix}"

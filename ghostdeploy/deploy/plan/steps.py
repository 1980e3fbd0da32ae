"""An export under way, and its steps: which worker processes run, in which order, each on the file of the step before.

    fp32, fp16    program.pt2 → onnx → openvino
    int8          program.pt2 → onnx (float) → quantize-openvino → openvino
    from ONNX     program.onnx → onnx → openvino

A target's own steps are its chain of parents; a quantized precision puts the quantizer of the row's recipe after the
first graph, and further targets convert from the quantized graph. Where a finished file is the model, the first step is
the intake of its row.

The program of a float precision has had the rewrites that suit the row's engine. Rows that need other rewrites than the
first row of their chain get their own first step, `onnx-for-tensorrt`. Quantizers start from the plain fold: a sum
of split layers would be one more tensor to quantize. If a converter accepts only one form of something, every program
has that form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.deploy.fold.passes import base_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from ghostdeploy.convert.cache import Cache
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.progress import Stages
    from ghostdeploy.targets import Recipe, Target

FOR = "-for-"
"""In the name of a first step that serves one row alone."""
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
    export_requirement: str
    """What pip must install for it."""
    source: str
    """File it reads, relative to the workspace."""
    precision: str
    target: str
    """Row of the target table whose payload, or float graph, it writes."""
    payload: str
    """File it writes that the next step reads."""
    layout: str | None = None
    """Order of image dimensions in it, where that is not the program's."""
    recipe: Recipe | None = None
    """Set for a quantizer."""
    rewrites: tuple[str, ...] = ()
    """Passes that its program has had after the fold, for the first step of a chain."""

    @property
    def result(self) -> str:
        """The payload, relative to the workspace."""
        return f"{self.name}/{self.payload}"

    @property
    def label(self) -> str:
        """Name of the stage on progress bars."""
        return (
            f"convert to {self.name.replace(FOR, ' for ')}"
            if self.recipe is None
            else f"quantize for {self.recipe.name}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRun:
    """One export of one model: used by every stage, changed by none."""

    config: ExportConfig
    """The request."""
    name: str
    """Of the model; its bundles begin with it."""
    intake: Target | None
    """Row whose finished file the model is; None is PyTorch."""
    work: Path
    """Workspace: program files, evidence, one folder per step. It is gone when the export ends."""
    cache: Cache
    """Of conversions."""
    stages: Stages
    """Receives the progress."""

    @property
    def steps(self) -> list[Step]:
        """Returns the steps to all targets, each once, in order."""
        found = all_steps(self.config.rows, self.config.precision, self.intake, skip=self.config.skip_passes)
        return list(found.values())

    def steps_to(self, row: Target) -> list[Step]:
        """Returns the steps that lead to the payload of one target, in order."""
        return steps_to(row, self.config.precision, self.intake, skip=self.config.skip_passes)


def steps_to(row: Target, precision: str, intake: Target | None = None, *, skip: Collection[str] = ()) -> list[Step]:
    """Returns the steps that lead to the payload of `row`, in order.

    Args:
        row: The target.
        precision: One of its precisions.
        intake: Row whose finished file is the model; None is the PyTorch graph.
        skip: Passes to leave out.
    """
    found: list[Step] = []
    first = targets.chain(row)[0]
    rewrites, usual = (rewrites_of(one, precision, intake, skip) for one in (row, first))
    for link in targets.chain(row):
        source = found[-1].result if found else program_file(intake, rewrites)
        quantized = precision in QUANTIZED
        own = "fp32" if quantized and not found else precision
        exporter, requirement = link.exporter, link.export_requirement
        if not found and intake is not None and intake.intake is not None:
            exporter, requirement = intake.intake.exporter, intake.intake.requirement
        step = Step(
            name=link.name if found or rewrites == usual else f"{link.name}{FOR}{row.name}",
            exporter=exporter,
            export_requirement=requirement,
            source=source,
            precision=own,
            layout=link.layout,
            payload=link.payload,
            target=link.name,
            rewrites=() if found else rewrites,
        )
        found.append(step)
        if quantized and len(found) == 1 and row.recipe is not None:
            name, recipe = f"quantize-{row.recipe.name}", row.recipe
            found.append(
                replace(step, name=name, exporter=row.quantizer, source=step.result, precision=precision, recipe=recipe)
            )
    return found


def all_steps(
    rows: Iterable[Target], precision: str, intake: Target | None = None, *, skip: Collection[str] = ()
) -> dict[str, Step]:
    """Returns the steps to all rows, each once, by name, in order; see `steps_to`."""
    return {step.name: step for row in rows for step in steps_to(row, precision, intake, skip=skip)}


def rewrites_of(row: Target, precision: str, intake: Target | None, skip: Collection[str]) -> tuple[str, ...]:
    """Returns the passes after the fold that a row's program gets; only its form for quantizers, none for files."""
    if intake is not None:
        return ()
    wanted = (*targets.chain(row)[0].forms, *(() if precision in QUANTIZED else row.rewrites))
    return tuple(name for name in wanted if base_name(name) not in skip)


def program_file(intake: Target | None, rewrites: tuple[str, ...] = ()) -> str:
    """Returns the name of the file that the first step reads."""
    if intake is not None and intake.intake is not None:
        return f"program{intake.intake.suffix}"
    return f"{'-'.join(('program', *rewrites))}.pt2"

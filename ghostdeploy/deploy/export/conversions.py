"""Runs the steps of one export: from the conversion cache where possible, otherwise each in its own process.

A converter's libraries take seconds to import, and memory from then on. So the first converter may start while the
model is folded, and each further one starts when the step before it begins to convert. A cached step starts none.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.convert.base import About, ExportJob
from ghostdeploy.convert.cache import pack, unpack
from ghostdeploy.convert.process import Converter
from ghostdeploy.deploy.export.conversion_key import conversion_key
from ghostdeploy.deploy.prove.measuring import allowed_drop
from ghostdeploy.deploy.quantize.stored import write_arrays

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ghostdeploy.convert.base import ExportResult, QuantizeSpec
    from ghostdeploy.deploy.intake.records import Folded
    from ghostdeploy.deploy.plan.steps import ExportRun, Step
    from ghostdeploy.targets import Recipe

FROM_CACHE = " (from the cache)"
"""Ends the name of a stage whose result was kept by an earlier export."""


class Conversions:
    """Runs the steps of an export in order.

    Args:
        run: The export; logs and results of the steps go to its workspace.
    """

    def __init__(self, run: ExportRun) -> None:
        self._run = run
        self._steps = run.steps
        self._stack = ExitStack()
        self._started: dict[str, Converter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def start_ahead(self) -> None:
        """Starts the first converter, so that it imports while the caller does other work."""
        self._converter(self._steps[0])

    def run(self, step: Step, job: ExportJob) -> ExportResult:
        """Runs one step; its payload files are in `job.folder` afterwards.

        Raises:
            ExportFailed: The converter failed, crashed, was killed, or took too long; its log is named.
            MissingDependency: A library it needs cannot be imported.
            OutputError: It could not write its files.
        """
        cache, stages = self._run.cache, self._run.stages
        key = conversion_key(step.exporter, job, self._run.work) if cache.on and _repeatable(step) else None
        if key is not None and (kept := self._kept(key, step, job)) is not None:
            return kept
        with stages.stage(step.label):
            converter = self._converter(step)
            for following in self._steps[self._steps.index(step) + 1 :][:1]:
                self._converter(following)
            try:
                on_progress = stages.advance if step.recipe else None
                result = converter.convert(job, seconds=self._run.config.timeout, on_progress=on_progress)
            finally:
                converter.close()
        if key is not None:
            cache.write(key, pack(Path(job.folder), result))
        return result

    def _kept(self, key: str, step: Step, job: ExportJob) -> ExportResult | None:
        with self._run.cache.find(key) as stream:
            if stream is None:
                return None
            with self._run.stages.stage(step.label + FROM_CACHE):
                folder = Path(job.folder)
                try:
                    result = unpack(stream, folder)
                    if not (folder / step.payload).is_file():
                        raise ValueError(f"it holds no {step.payload}")  # noqa: TRY301 - as all that `unpack` finds
                except (ValueError, FileExistsError, NotADirectoryError):  # whole, but not written by us
                    shutil.rmtree(folder)
                    folder.mkdir()
                    return None
            if step.name in self._started:
                self._started[step.name].close()
            return result

    def _converter(self, step: Step) -> Converter:
        if step.name not in self._started:
            converter = Converter(step, self._run.work / f"{step.name}.log", frugal=step.recipe is None)
            self._started[step.name] = self._stack.enter_context(converter)
        return self._started[step.name]


def _repeatable(step: Step) -> bool:
    """Returns whether all that a step depends on is known: our own exporters, and no engine timed on a GPU."""
    row = targets.find(step.target)
    timed = row.device is not None and targets.has_device(row)
    return step.exporter.startswith("ghostdeploy.") and not timed


def job_of(step: Step, folded: Folded, run: ExportRun) -> ExportJob:
    """Returns the job of a step's worker, and makes the folder `work/<step>` for its files."""
    folder = run.work / step.name
    folder.mkdir()
    program = folded.seen.interface
    payload = program.with_layout(step.layout)
    return ExportJob(
        source=str(run.work / step.source),
        folder=str(folder),
        result=str(run.work / f"{step.name}.json"),
        precision=step.precision,
        input_names=tuple(spec.name for spec in program.inputs),
        output_names=tuple(spec.name for spec in program.outputs),
        dynamic_batch=run.config.batch is None,
        batch=run.config.batch,
        modules=folded.modules,
        about=About(name=run.name, labels=tuple(folded.seen.labels), preprocess=payload.preprocess),
        channels_last=payload.preprocess.layout != program.preprocess.layout,
        settings=run.config.settings_of(targets.find(step.target)),
        quantization=None if step.recipe is None else _quantization(step, step.recipe, folded, run),
    )


def _quantization(step: Step, recipe: Recipe, folded: Folded, run: ExportRun) -> QuantizeSpec:
    """Returns the job of a recipe's quantizer, and writes the golden inputs that it reads."""
    interface = folded.seen.interface.with_layout(step.layout)
    golden = run.work / f"{step.name}-golden"
    write_arrays(golden, interface.golden_inputs)
    seen = folded.seen
    assert seen.evidence is not None  # gathered for this precision
    limit = run.config.top1_drop
    if seen.measure is not None:
        limit = allowed_drop(seen.task.info.name, run.config.max_drop)
    return seen.evidence.spec(recipe, interface.preprocess, golden, max_drop=limit, class_names=seen.labels)

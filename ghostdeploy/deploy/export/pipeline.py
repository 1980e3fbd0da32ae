"""The one place that defines the order: load → prepare → convert and quantize → prove → bundle."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.arguments import require_kind, require_path
from ghostdeploy.bundle import staging
from ghostdeploy.convert.cache import Cache
from ghostdeploy.convert.memory import LARGE_WEIGHTS, give_back
from ghostdeploy.deploy.export.advice import int8_advice, recommendation
from ghostdeploy.deploy.export.conversions import Conversions, job_of
from ghostdeploy.deploy.export.failures import Failures, converter_to_blame, keep_log
from ghostdeploy.deploy.export.packaging import Converted, package
from ghostdeploy.deploy.fold.one_at_a_time import taking_turns
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan.config import ExportConfig, known_options
from ghostdeploy.deploy.plan.steps import QUANTIZED, ExportRun
from ghostdeploy.errors import GateFailed
from ghostdeploy.machine import cpu_flags
from ghostdeploy.progress import Listener, Stages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.convert.base import ExportResult
    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.deploy.intake.records import Folded
    from ghostdeploy.deploy.plan.steps import Step
    from ghostdeploy.errors import GhostDeployError
    from ghostdeploy.targets import Target

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, slots=True)
class Exported:
    """What one export gave."""

    bundles: list[Bundle]
    seconds: dict[str, float]
    """Wall time by stage."""
    advice: str | None = None
    """The precision that would pay more on this processor, one sentence."""
    failures: dict[str, GhostDeployError] = field(default_factory=dict)
    """Why a target has no bundle, of several targets."""

    @property
    def exit_code(self) -> int:
        """That of the first failure, else 1 where a bundle's gate failed, else 0."""
        codes = [error.exit_code for error in self.failures.values()]
        return codes[0] if codes else int(any(one.manifest.verdict == "failed" for one in self.bundles))


def export(
    model: nn.Module | str | Path | None = None,
    *,
    target: str = targets.DEFAULT,
    precision: str = "fp32",
    weights: str | Path | None = None,
    weights_key: str | None = None,
    name: str | None = None,
    out: str | Path = "build",
    **options: Any,
) -> Bundle:
    """Exports one model to one target and proves the result.

    Args:
        model: A trained module from float32 (N, 3, H, W) to logits or several outputs, or a MODEL as on the command
            line, a path to an ONNX file included; None is the trained sample model.
        target: Row of the target table.
        precision: One of the row's precisions.
        weights: Checkpoint file, when `model` is a name.
        weights_key: Name of the state dict in it, where it holds several; by default the averaged one.
        name: Name of the bundle; default is the model's.
        out: Parent folder of the bundle.
        options: Further fields of `ExportConfig`: `batch`, `input`, `calibration`, `data`, `max_drop`, `labels`,
            `preprocess`, `replace`, `timeout`.

    Returns:
        The bundle; its verdict is "passed" or "unverified".

    Raises:
        GateFailed: The bundle was written and its verdict is "failed".
        GhostDeployError: See the tree in `ghostdeploy.errors`.
    """
    require_kind("target", target, str, "a name")
    if name is not None:
        require_kind("name", name, str, "a folder name")
    chosen = known_options(options)
    config = ExportConfig(targets=(target,), precision=precision, out=require_path("out", out), **chosen)
    checkpoint = None if weights is None else require_path("weights", weights)
    load = resolve_model(model, config, weights=checkpoint, weights_key=weights_key)
    bundle = run_export(load, config, name=name).bundles[0]
    if bundle.manifest.verdict == "failed":
        raise GateFailed(f"{bundle.path} failed its gates", hint=f"ghostdeploy inspect {bundle.path}")
    return bundle


def run_export(
    load: Callable[[], ExportedModel],
    config: ExportConfig,
    *,
    name: str | None = None,
    listener: Listener | None = None,
) -> Exported:
    """Exports a model to every target of the configuration.

    Args:
        load: Gives the model.
        config: The request.
        name: Name of the bundles instead of the model's.
        listener: Receives the progress.

    Raises:
        GhostDeployError: See the tree in `ghostdeploy.errors`. Bundles finished before the error stay; none is half.
            What a converter or an engine does to one of several targets is not raised but listed in `failures`.
    """
    stages, failures = Stages(listener), Failures(alone=len(config.rows) == 1)
    if config.precision in QUANTIZED:
        advise(config.rows)
    if name is not None:
        refuse_existing(config, name)
    with ExitStack() as stack:
        work = stack.enter_context(staging.workspace(config.out, f"{name or 'export'}-work"))
        with stages.stage("load model"), taking_turns():
            model = load()
        run = ExportRun(
            config=config,
            name=name or model.name,
            intake=model.intake,
            work=work,
            cache=Cache.of_user(),
            stages=stages,
        )
        refuse_existing(config, run.name)
        conversions = stack.enter_context(Conversions(run))
        if model.weight_bytes <= LARGE_WEIGHTS:
            conversions.start_ahead()
        with taking_turns():
            folded = model.prepare(run)
        del model
        give_back()
        results = convert(folded, conversions, failures, run)
        bundles = []
        for row in (row for row in config.rows if row.name not in failures.errors):
            with (
                failures.kept([row.name]),
                stages.stage(f"prove {row.name}"),
                taking_turns(),
                keep_log(config.out, run.name),
            ):
                bundles.append(place(Converted.of(row, results, folded, run), folded, run))
    return Exported(bundles, stages.seconds, better_precision(run, results), failures.errors)


def convert(folded: Folded, conversions: Conversions, failures: Failures, run: ExportRun) -> dict[str, ExportResult]:
    """Runs the steps that a target still waits for, and returns their results by name."""
    ways = {row.name: run.steps_to(row) for row in run.config.rows}
    results = {}
    for step in run.steps:
        served = [target for target, way in ways.items() if step in way and target not in failures.errors]
        if served:
            with failures.kept(served), keep_log(run.config.out, run.name):
                results[step.name] = conversions.run(step, job_of(step, folded, run))
    return results


def place(converted: Converted, folded: Folded, run: ExportRun) -> Bundle:
    """Assembles and judges the bundle of one target, and moves it to its place; see `package`.

    Raises:
        ExportFailed: The engine refuses what was just converted.
    """
    row, final = converted.row, run.config.folder(run.name, converted.row)
    with (
        staging.staging(run.config.out, final.name, force=run.config.replace) as folder,
        converter_to_blame(row.name, folder, final, log=run.work / f"{converted.step.name}.log"),
    ):
        bundle = package(converted, folded, run, folder)
    return type(bundle)(final, bundle.manifest)


def refuse_existing(config: ExportConfig, name: str) -> None:
    """Raises what `staging.refuse_existing` does of any bundle of a model called `name`."""
    for row in config.rows:
        staging.refuse_existing(config.folder(name, row), force=config.replace)


def advise(rows: list[Target]) -> None:
    """Warns where INT8 will not be faster on this processor."""
    for row in rows:
        if (advice := int8_advice(row, cpu_flags())) is not None:
            _log.warning("%s", advice)


def better_precision(run: ExportRun, results: dict[str, ExportResult]) -> str | None:
    """Returns one sentence about the precision that pays on this processor, see `recommendation`."""
    rows = run.config.rows
    idle = {row.name for row in rows if not waits(run.steps_to(row), results)}
    return recommendation(rows, run.config.precision, cpu_flags(), without_hybrid=idle)


def waits(way: list[Step], results: dict[str, ExportResult]) -> bool:
    """Returns whether `hybrid` would change a layer; True where nothing was counted in its starting graph."""
    if any(step.recipe is not None for step in way):  # a quantizer's graph lacks the rewrites that `hybrid` has
        return True
    found = (results[step.name].written for step in way if step.name in results)
    return next((one.waiting_layers != 0 for one in found if one is not None and one.waiting_layers is not None), True)

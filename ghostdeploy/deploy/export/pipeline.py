"""The one place that knows the order: load → prepare → convert and quantize → prove → bundle."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy import targets
from ghostdeploy.arguments import require_kind, require_path
from ghostdeploy.bundle import staging
from ghostdeploy.bundle.placing import LOG_HEAD, write_beside
from ghostdeploy.convert.base import About, ExportJob, ExportResult
from ghostdeploy.convert.cache import Cache
from ghostdeploy.convert.memory import LARGE_WEIGHTS, give_back
from ghostdeploy.deploy.export.advice import int8_advice, recommendation
from ghostdeploy.deploy.export.conversions import Conversions
from ghostdeploy.deploy.export.failures import Failures, converter_to_blame
from ghostdeploy.deploy.export.packaging import Chain, package
from ghostdeploy.deploy.fold.one_at_a_time import taking_turns
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan.config import ExportConfig, known_options
from ghostdeploy.deploy.plan.steps import QUANTIZED, Step, all_steps, steps_to
from ghostdeploy.errors import ExportFailed, GateFailed
from ghostdeploy.files import fitting, name_limit
from ghostdeploy.machine import cpu_flags
from ghostdeploy.progress import Listener, Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.convert.base import QuantizeSpec
    from ghostdeploy.deploy.intake.facts import Facts
    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.errors import GhostDeployError
    from ghostdeploy.targets import Recipe, Target

_log = logging.getLogger("ghostdeploy")
_NUMBER = len("-1000")
"""Bytes that `write_beside` may add to a name."""


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
    resolved = resolve_model(model, config, weights=checkpoint, weights_key=weights_key)
    bundle = run_export(resolved.load, config, name=name, intake=resolved.intake).bundles[0]
    if bundle.manifest.verdict == "failed":
        raise GateFailed(f"{bundle.path} failed its gates", hint=f"ghostdeploy inspect {bundle.path}")
    return bundle


def run_export(
    load: Callable[[], ExportedModel],
    config: ExportConfig,
    *,
    name: str | None = None,
    listener: Listener | None = None,
    intake: Target | None = None,
) -> Exported:
    """Exports a model to every target of the configuration.

    Args:
        load: Gives the model.
        config: The request.
        name: Name of the bundles instead of the model's.
        listener: Receives the progress.
        intake: Row whose finished file the model is; None is PyTorch.

    Raises:
        GhostDeployError: See the tree in `ghostdeploy.errors`. Bundles finished before the error stay; none is half.
            What a converter or an engine does to one of several targets is no error but in `failures`.
    """
    stages, failures = Stages(listener), Failures(alone=len(config.rows) == 1)
    if config.precision in QUANTIZED:
        advise(config.rows)
    steps = all_steps(config.rows, config.precision, intake, skip=config.skip_passes)
    if name is not None:
        refuse_existing(name, config)
    with ExitStack() as stack:
        work = stack.enter_context(staging.workspace(config.out, f"{name or 'export'}-work"))
        conversions = Conversions(list(steps.values()), work, cache=Cache.of_user(), seconds=config.timeout)
        stack.enter_context(conversions)
        with stages.stage("load model"), taking_turns():
            model = load()
        if model.weight_bytes <= LARGE_WEIGHTS:
            conversions.start_ahead()
        name = name or model.name
        names = refuse_existing(name, config)
        with taking_turns():
            facts = model.prepare(name, config, work, stages)
        del model
        give_back()
        ways = {row.name: steps_to(row, config.precision, intake, skip=config.skip_passes) for row in config.rows}
        results: dict[str, ExportResult] = {}
        for step in steps.values():
            served = [target for target, way in ways.items() if step in way and target not in failures.errors]
            if served:
                with failures.kept(served), keep_log(config.out, name):
                    results[step.name] = conversions.run(step, job_of(step, facts, config, work), stages)
        bundles = []
        for row in (row for row in config.rows if row.name not in failures.errors):
            chain, final = [(step, results[step.name]) for step in ways[row.name]], config.out / names[row.name]
            with (
                failures.kept([row.name]),
                stages.stage(f"prove {row.name}"),
                taking_turns(),
                keep_log(config.out, name),
            ):
                bundles.append(place(final, row, chain, facts, config, work, stages))
    return Exported(bundles, stages.seconds, better_precision(config, ways, results), failures.errors)


def place(
    final: Path, row: Target, chain: Chain, facts: Facts, config: ExportConfig, work: Path, stages: Stages
) -> Bundle:
    """Assembles and judges the bundle of one target, and moves it to its place; see `package`.

    Raises:
        ExportFailed: The engine refuses what was just converted.
    """
    with (
        staging.staging(config.out, final.name, force=config.replace) as folder,
        converter_to_blame(row.name, folder, final, log=work / f"{chain[-1][0].name}.log"),
    ):
        bundle = package(row, chain, facts, config, work, folder, stages)
    return type(bundle)(final, bundle.manifest)


def refuse_existing(name: str, config: ExportConfig) -> dict[str, str]:
    """Returns the names of the bundles by target; raises what `staging.refuse_existing` does."""
    names = {row.name: f"{name}-{row.name}-{config.precision}" for row in config.rows}
    for bundle_name in names.values():
        staging.refuse_existing(config.out / bundle_name, force=config.replace)
    return names


def advise(rows: list[Target]) -> None:
    """Warns where INT8 will not be faster on this processor."""
    for row in rows:
        if (advice := int8_advice(row, cpu_flags())) is not None:
            _log.warning("%s", advice)


def better_precision(config: ExportConfig, ways: dict[str, list[Step]], results: dict[str, ExportResult]) -> str | None:
    """Returns one sentence about the precision that pays on this processor, see `recommendation`."""
    idle = {row.name for row in config.rows if not waits(ways[row.name], results)}
    return recommendation(config.rows, config.precision, cpu_flags(), without_hybrid=idle)


def waits(way: list[Step], results: dict[str, ExportResult]) -> bool:
    """Tells whether `hybrid` would change a layer; True where nothing was counted in the graph that it starts from."""
    if any(step.recipe is not None for step in way):  # a quantizer's graph lacks the rewrites that `hybrid` has
        return True
    found = (results[step.name].written for step in way if step.name in results)
    return next((one.waiting_layers != 0 for one in found if one is not None and one.waiting_layers is not None), True)


def job_of(step: Step, facts: Facts, config: ExportConfig, work: Path) -> ExportJob:
    """Returns what a step's worker is to do, and makes the folder `work/<step>` for its files."""
    folder = work / step.name
    folder.mkdir()
    payload = facts.with_layout(step.layout)
    return ExportJob(
        source=str(work / step.source),
        folder=str(folder),
        result=str(work / f"{step.name}.json"),
        precision=step.precision,
        input_names=tuple(spec.name for spec in facts.inputs),
        output_names=tuple(spec.name for spec in facts.outputs),
        dynamic_batch=config.batch is None,
        batch=config.batch,
        modules=facts.modules,
        about=About(name=facts.model.name, labels=tuple(facts.labels), preprocess=payload.preprocess),
        channels_last=payload.preprocess.layout != facts.preprocess.layout,
        settings=config.settings_of(targets.find(step.target)),
        quantization=None if step.recipe is None else quantization(step, step.recipe, facts, config, work),
    )


def quantization(step: Step, recipe: Recipe, facts: Facts, config: ExportConfig, work: Path) -> QuantizeSpec:
    """Returns what the quantizer of a recipe is to do, and writes the golden inputs that it reads."""
    assert facts.evidence is not None  # prepare() gathered it for this precision
    evidence, facts = facts.evidence, facts.with_layout(step.layout)
    golden = work / f"{step.name}-golden.npy"
    np.save(golden, next(iter(facts.golden_inputs.values())), allow_pickle=False)
    return evidence.spec(recipe, facts.preprocess, golden, config.max_drop)


@contextmanager
def keep_log(out: Path, name: str) -> Iterator[None]:
    """Copies the log of a failed converter out of the workspace, and names the copy; see `write_beside`."""
    try:
        yield
    except ExportFailed as error:
        if error.log is None:
            raise
        path = out / fitting(name, f"-{error.log.stem}.log", name_limit(out) - _NUMBER)
        kept = write_beside(path, error.log.read_bytes(), LOG_HEAD)
        hint = f"its log is {kept}"
        raise ExportFailed(error.message, log=kept, hint=f"{error.hint}; {hint}" if error.hint else hint) from error

"""The one place that knows the order: load → reference → fold → convert → prove → bundle."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy import staging, targets
from ghostdeploy.deploy.assemble import Facts, assemble
from ghostdeploy.deploy.config import ExportConfig, apply_overrides
from ghostdeploy.deploy.evaluate import check_labels
from ghostdeploy.deploy.inputs import Inputs, read_labels
from ghostdeploy.deploy.stages import Listener, Stages
from ghostdeploy.errors import ExportFailed, GateFailed, OutputError
from ghostdeploy.exporters.base import ExportJob, ExportResult
from ghostdeploy.exporters.process import Converter
from ghostdeploy.manifest import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from ghostdeploy.bundle import Bundle
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.targets import Target


@dataclass(frozen=True, slots=True)
class Exported:
    """What one export gave."""

    bundles: list[Bundle]
    seconds: dict[str, float]
    """Wall time by stage."""


def export(
    model: nn.Module | str | None = None,
    *,
    target: str = "openvino",
    precision: str = "fp32",
    weights: str | Path | None = None,
    name: str | None = None,
    out: str | Path = "build",
    **options: Any,
) -> Bundle:
    """Exports one model to one target and proves the result.

    Args:
        model: A trained module from float32 (N, 3, H, W) to logits, or a MODEL as on the command line; None is the
            trained sample model.
        target: Row of the target table.
        precision: One of the row's precisions.
        weights: Checkpoint file, when `model` is a name.
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
    from ghostdeploy.models.source import from_module, load_model

    config = ExportConfig(targets=(target,), precision=precision, out=Path(out), **options)
    targets.require_export(config.rows)

    def load() -> LoadedModel:
        if model is None or isinstance(model, str):
            return load_model(model, weights=Path(weights) if weights else None)
        return from_module(model)

    bundle = run_export(load, config, name=name).bundles[0]
    if bundle.manifest.verdict == "failed":
        raise GateFailed(f"{bundle.path} failed its gates", hint=f"ghostdeploy inspect {bundle.path}")
    return bundle


def run_export(
    load: Callable[[], LoadedModel],
    config: ExportConfig,
    *,
    name: str | None = None,
    listener: Listener | None = None,
) -> Exported:
    """Exports a model to every target of the configuration.

    Args:
        load: Gives the model; called after the converters have been started, so that they import meanwhile.
        config: The request.
        name: Name of the bundles instead of the model's.
        listener: Hears the progress.

    Raises:
        GhostDeployError: See the tree in `ghostdeploy.errors`. Bundles finished before the error stay; none is half.
    """
    stages = Stages(listener)
    links = {row.name: row for target in config.rows for row in targets.chain(target)}
    with ExitStack() as stack:
        work = stack.enter_context(staging.workspace(config.out, f"{name or 'export'}-work"))
        converters = {row.name: stack.enter_context(Converter(row, work / f"{row.name}.log")) for row in links.values()}
        with stages.stage("load model"):
            model = load()
        name = name or model.name
        names = {row.name: f"{name}-{row.name}-{config.precision}" for row in config.rows}
        for bundle_name in names.values():
            staging.refuse_existing(config.out / bundle_name, force=config.replace)
        facts = prepare(model, name, config, work, stages)
        results: dict[str, ExportResult] = {}
        for row in links.values():
            with stages.stage(f"convert to {row.name}"), keep_log(config.out, name):
                results[row.name] = convert(row, converters[row.name], facts, config, work)
        bundles = []
        for row in config.rows:
            with stages.stage(f"prove {row.name}"):
                chain = [results[link.name] for link in targets.chain(row)]
                with staging.staging(config.out, names[row.name], force=config.replace) as folder:
                    bundle = assemble(row, chain, facts, config, work / row.name, folder, stages)
            bundles.append(type(bundle)(config.out / names[row.name], bundle.manifest))
    return Exported(bundles, stages.seconds)


def prepare(model: LoadedModel, name: str, config: ExportConfig, work: Path, stages: Stages) -> Facts:
    """Does all that comes before the first converter: golden vectors, capture, fold, the program file."""
    from ghostdeploy.deploy.fold import fold
    from ghostdeploy.deploy.program import PixelInput, save_program
    from ghostdeploy.deploy.reference import Reference
    from ghostdeploy.models.count import count_macs, count_params

    preprocess = apply_overrides(model.preprocess, config.preprocess)
    inputs = Inputs.choose(model, config)
    with stages.stage("golden vectors"):
        reference = Reference(model.module)
        golden = inputs.golden(preprocess)
        outputs = reference.outputs(golden)
        num_classes = int(next(iter(outputs.values())).shape[1])
    labels = read_labels(config.labels, model.labels, num_classes)
    if inputs.data is not None:
        check_labels(inputs.data, num_classes)
    with stages.stage("fold"):
        images = 2 if config.batch is None else config.batch
        example = golden[[i % len(golden) for i in range(images)]]
        reference.outputs(example)  # some modules drop the batch when it is 1
        folded, certificate = fold(reference.module, example, dynamic_batch=config.batch is None)
    with stages.stage("save program"):
        graph: nn.Module = folded
        payload_spec = apply_overrides(preprocess, {"layout": "nhwc" if config.input == "uint8-nhwc" else "nchw"})
        if payload_spec.layout == "nhwc":
            graph = PixelInput(folded, preprocess)
            golden = inputs.golden(payload_spec)
            example = golden[[i % len(golden) for i in range(images)]]
        save_program(graph, example, work / "program.pt2", dynamic_batch=config.batch is None)
    info = ModelInfo(
        name=name,
        family=model.family,
        source=model.source,
        weights_sha256=model.weights_sha256,
        num_classes=num_classes,
        params=count_params(reference.module),
        macs=count_macs(folded, (1, 3, preprocess.size, preprocess.size)),
    )
    return Facts(
        model=info,
        preprocess=payload_spec,
        reference_preprocess=preprocess,
        labels=labels,
        reference=reference,
        data=inputs.data,
        inputs=(spec_of(reference.input_name, golden, config.batch, payload_spec.layout),),
        outputs=tuple(spec_of(key, array, config.batch) for key, array in outputs.items()),
        golden_inputs={reference.input_name: golden},
        golden_outputs=outputs,
        passes=certificate.passes,
        tools={"ghostdeploy": version("ghostdeploy"), "torch": version("torch")},
    )


def convert(row: Target, converter: Converter, facts: Facts, config: ExportConfig, work: Path) -> ExportResult:
    """Runs one link of the chain; its payload files lie in `work/<target>` afterwards."""
    folder = work / row.name
    folder.mkdir()
    source = work / "program.pt2" if row.parent is None else work / row.parent / targets.find(row.parent).payload
    job = ExportJob(
        source=str(source),
        folder=str(folder),
        result=str(work / f"{row.name}.json"),
        precision=config.precision,
        input_names=tuple(spec.name for spec in facts.inputs),
        output_names=tuple(spec.name for spec in facts.outputs),
        dynamic_batch=config.batch is None,
    )
    return converter.convert(job, seconds=config.timeout)


@contextmanager
def keep_log(out: Path, name: str) -> Iterator[None]:
    """Copies the log of a failed converter out of the workspace, and names the copy."""
    try:
        yield
    except ExportFailed as error:
        if error.log is None:
            raise
        kept = out / f"{name}-{error.log.stem}.log"
        try:
            shutil.copyfile(error.log, kept)
        except OSError as reason:
            raise OutputError(f"{kept} cannot be written: {reason.strerror}") from error
        hint = f"its log is {kept}"
        raise ExportFailed(error.message, log=kept, hint=f"{error.hint}; {hint}" if error.hint else hint) from error


def spec_of(name: str, array: Any, batch: int | None, layout: Any = None) -> TensorSpec:
    """Returns the record of a tensor whose first dimension is the batch."""
    return TensorSpec(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]), layout=layout)

"""All that comes before the first converter: golden vectors, fold, conditioning, evidence, the program file."""

from __future__ import annotations

import shutil
from itertools import islice
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.manifest import ModelInfo
from ghostdeploy.convert.memory import LARGE_WEIGHTS, give_back
from ghostdeploy.deploy.fold.half_range import half_ranges
from ghostdeploy.deploy.intake.reference_run import run_reference
from ghostdeploy.deploy.plan.config import apply_overrides
from ghostdeploy.deploy.plan.steps import FOR, QUANTIZED, all_steps

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import fx, nn

    from ghostdeploy.bundle.manifest import PassRecord
    from ghostdeploy.deploy.intake.facts import Facts
    from ghostdeploy.deploy.intake.pytorch.reference import Reference
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Stages

CONDITIONING_IMAGES = 256
"""Images whose activation ranges the equalization looks at."""


def prepare(model: LoadedModel, name: str, config: ExportConfig, work: Path, stages: Stages) -> Facts:
    """Brings a model to where converters can start.

    Args:
        model: What was loaded.
        name: Name of the bundles.
        config: The request.
        work: Folder that receives the program file and, for quantized precisions, the evidence.
        stages: Receives the progress.
    """
    from ghostdeploy.deploy.fold.passes.value_ranges import watch_graph
    from ghostdeploy.deploy.fold.program import PixelInput, save_program
    from ghostdeploy.deploy.intake.pytorch.reference import Reference
    from ghostdeploy.models.count import count_macs, count_params

    preprocess = apply_overrides(model.preprocess, config.preprocess)
    reference = Reference(model.module, shared=model.shared)
    seen = run_reference(model, preprocess, reference, config, work, stages)
    give_back()
    golden = seen.golden
    places = [i % len(golden) for i in range(2 if config.batch is None else config.batch)]
    folded, passes, conditioning = rewrite(reference, golden[places], seen.evidence, preprocess, config, stages)
    programs = all_programs(folded, passes, golden[places], config, stages)
    ranges = half_ranges({file: graph for file, (graph, _) in programs.items()}, seen, config, stages, watch_graph)
    with stages.stage("save program"):
        if seen.payload.takes_pixels:
            golden = seen.inputs.golden(seen.payload)
        saved: dict[fx.GraphModule, Path] = {}
        for file, (graph, _) in programs.items():
            if graph in saved:
                shutil.copyfile(saved[graph], work / file)
                continue
            network: nn.Module = PixelInput(graph, preprocess) if seen.payload.takes_pixels else graph
            saved[graph] = work / file
            save_program(network, golden[places], saved[graph], dynamic_batch=config.batch is None)
    info = ModelInfo(
        name=name,
        family=model.family,
        source=model.source,
        weights_sha256=model.weights_sha256,
        weights_key=model.weights_key,
        num_classes=seen.num_classes,
        params=count_params(reference.module),
        macs=count_macs(folded, (1, 3, preprocess.size, preprocess.size)),
    )
    modules = tuple(key for key, _ in reference.module.named_modules() if key)
    proofs = {file: records for file, (_, records) in programs.items()}
    tools = ("ghostdeploy", "torch")
    return seen.facts(info, golden, proofs, config, tools=tools, modules=modules, by=conditioning, half_ranges=ranges)


def rewrite(
    reference: Reference,
    example: NDArray[Any],
    evidence: Evidence | None,
    preprocess: Preprocess,
    config: ExportConfig,
    stages: Stages,
) -> tuple[fx.GraphModule, tuple[PassRecord, ...], dict[float, PassRecord]]:
    """Folds the module, and conditions the result for quantized precisions."""
    import torch

    from ghostdeploy.deploy.fold.fold import fold
    from ghostdeploy.deploy.fold.passes import default_passes
    from ghostdeploy.module_copies import tensors_of

    with stages.stage("fold"):
        reference.outputs(example)  # some modules drop the batch when it is 1
        passes = default_passes(skip=config.skip_passes)
        heavy = sum(tensor.nbytes for tensor in tensors_of(reference.module).values()) > LARGE_WEIGHTS
        folded, certificate = fold(
            reference.module,
            example,
            passes=passes,
            dynamic_batch=config.batch is None,
            without=torch.float64,
            on_pass=(lambda _: give_back()) if heavy else None,
        )
    records = certificate.passes
    if config.align_channels is not None:
        from ghostdeploy.deploy.quantize.condition import align

        with stages.stage("align channels"):
            folded, record = align(folded, example, config.align_channels)
        records = (*records, record)
    if evidence is None or config.precision not in QUANTIZED:
        return folded, records, {}
    with stages.stage("condition"):
        conditioning = condition(folded, example, evidence, preprocess)
    return folded, records, conditioning


def all_programs(
    folded: fx.GraphModule,
    passes: tuple[PassRecord, ...],
    example: NDArray[Any],
    config: ExportConfig,
    stages: Stages,
) -> dict[str, tuple[fx.GraphModule, tuple[PassRecord, ...]]]:
    """Returns the graph that each program file will hold, with its certificate: the fold, then what suits an engine."""
    from ghostdeploy.deploy.quantize.condition import rewrite as apply

    found = {}
    for step in all_steps(config.rows, config.precision, skip=config.skip_passes).values():
        if step.source in found or not step.source.endswith(".pt2"):
            continue
        found[step.source] = (folded, passes)
        if step.rewrites:
            with stages.stage(f"rewrite for {step.name.rpartition(FOR)[2]}"):
                graph, records = apply(folded, example, step.rewrites)
            found[step.source] = (graph, (*passes, *records))
    return found


def condition(
    folded: fx.GraphModule, example: NDArray[Any], evidence: Evidence, preprocess: Preprocess
) -> dict[float, PassRecord]:
    """Makes the equalized weights that the quantizer chooses from, and leaves the graph as it is."""
    from ghostdeploy.deploy.quantize.condition import equalize_all
    from ghostdeploy.deploy.quantize.pixels import read_full_batches

    size = len(example)  # a graph of fixed batch takes no other
    batches = read_full_batches(evidence.calibrated.path, preprocess, size)
    return equalize_all(folded, example, islice(batches, -(-CONDITIONING_IMAGES // size)), evidence.conditioned)

"""Everything before the first converter: golden vectors, fold, conditioning, evidence, the program file."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING

from ghostdeploy.batches import arrays_of, as_batch
from ghostdeploy.bundle.manifest import ModelInfo
from ghostdeploy.convert.memory import LARGE_WEIGHTS, give_back
from ghostdeploy.deploy.fold.half_range import half_ranges
from ghostdeploy.deploy.intake.records import Folded
from ghostdeploy.deploy.intake.reference_run import run_reference
from ghostdeploy.deploy.plan.steps import FOR, QUANTIZED

if TYPE_CHECKING:
    from pathlib import Path

    from torch import fx, nn

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.manifest import PassRecord
    from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
    from ghostdeploy.deploy.intake.records import ReferenceRun
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.plan.steps import ExportRun

CONDITIONING_IMAGES = 256
"""Images whose activation ranges the equalization looks at."""


def prepare(model: PyTorchModel, run: ExportRun) -> Folded:
    """Brings a model to where converters can start.

    Args:
        model: What was loaded.
        run: The export.
    """
    from ghostdeploy.deploy.fold.passes.value_ranges import watch_graph
    from ghostdeploy.models.count import count_macs, count_params

    reference, loaded = model.reference(), model.loaded
    seen = run_reference(model, reference, run)
    give_back()
    batch = run.config.batch
    example = seen.golden[[i % len(seen.golden) for i in range(2 if batch is None else batch)]]
    with run.stages.stage("fold"):
        reference.outputs(example)  # some modules drop the batch when it is 1
        folded, passes = fold_module(reference.module, example, run.config)
    if run.config.align_channels is not None:
        from ghostdeploy.deploy.quantize.condition import align

        with run.stages.stage("align channels"):
            folded, record = align(folded, example, run.config.align_channels)
        passes = (*passes, record)
    conditioning = condition(folded, example, seen, run)
    programs = all_programs(folded, passes, example, run)
    ranges = half_ranges({file: graph for file, (graph, _) in programs.items()}, seen, run, watch_graph)
    save_programs({file: graph for file, (graph, _) in programs.items()}, len(example), seen, run)
    count = batch or 1
    shapes = [(count, *one.shape[1:]) for one in arrays_of(example)]
    return Folded(
        seen=seen,
        model=ModelInfo(
            name=run.name,
            family=loaded.family,
            source=loaded.source,
            weights_sha256=loaded.weights_sha256,
            weights_key=loaded.weights_key,
            num_classes=len(seen.labels),
            params=count_params(reference.module),
            macs=count_macs(folded, *shapes) // count,
        ),
        passes={file: records for file, (_, records) in programs.items()},
        tools={name: version(name) for name in ("ghostdeploy", "torch")},
        modules=tuple(key for key, _ in reference.module.named_modules() if key),
        conditioning=conditioning,
        half_ranges=ranges,
    )


def fold_module(
    module: nn.Module, example: Batch, config: ExportConfig
) -> tuple[fx.GraphModule, tuple[PassRecord, ...]]:
    """Returns the folded graph with its certificate."""
    import torch

    from ghostdeploy.deploy.fold.fold import fold
    from ghostdeploy.deploy.fold.passes import default_passes
    from ghostdeploy.module_copies import tensors_of

    heavy = sum(tensor.nbytes for tensor in tensors_of(module).values()) > LARGE_WEIGHTS
    folded, certificate = fold(
        module,
        tuple(arrays_of(example)),
        passes=default_passes(skip=config.skip_passes),
        dynamic_batch=config.batch is None,
        without=torch.float64,
        on_pass=(lambda _: give_back()) if heavy else None,
    )
    return folded, certificate.passes


def condition(folded: fx.GraphModule, example: Batch, seen: ReferenceRun, run: ExportRun) -> dict[float, PassRecord]:
    """Makes the equalized weights that the quantizer chooses from, and leaves the graph as it is."""
    if seen.evidence is None or run.config.precision not in QUANTIZED:
        return {}
    from ghostdeploy.deploy.quantize.condition import equalize_all
    from ghostdeploy.deploy.quantize.pixels import read_full_batches

    size = len(example)  # a graph of fixed batch takes no other
    with run.stages.stage("condition"):
        batches = read_full_batches(seen.evidence.calibrated.path, seen.preprocess, size)
        return equalize_all(
            folded, example, islice(batches, -(-CONDITIONING_IMAGES // size)), seen.evidence.conditioned
        )


def all_programs(
    folded: fx.GraphModule, passes: tuple[PassRecord, ...], example: Batch, run: ExportRun
) -> dict[str, tuple[fx.GraphModule, tuple[PassRecord, ...]]]:
    """Returns the graph that each program file will hold, with its certificate: the fold, then what suits an engine."""
    from ghostdeploy.deploy.quantize.condition import rewrite

    found = {}
    for step in run.steps:
        if step.source in found or not step.source.endswith(".pt2"):
            continue
        found[step.source] = (folded, passes)
        if step.rewrites:
            with run.stages.stage(f"rewrite for {step.name.rpartition(FOR)[2]}"):
                graph, records = rewrite(folded, example, step.rewrites)
            found[step.source] = (graph, (*passes, *records))
    return found


def save_programs(graphs: dict[str, fx.GraphModule], count: int, seen: ReferenceRun, run: ExportRun) -> None:
    """Writes the program files; a graph that stands for two is saved once.

    Args:
        graphs: By file.
        count: Images of the example that they are saved with.
        seen: Of the reference.
        run: The export.
    """
    from ghostdeploy.deploy.fold.program import PixelInput, save_program

    inputs = as_batch(seen.interface.golden_inputs)
    example = inputs[[i % len(inputs) for i in range(count)]]
    saved: dict[fx.GraphModule, Path] = {}
    with run.stages.stage("save program"):
        for file, graph in graphs.items():
            if graph in saved:
                shutil.copyfile(saved[graph], run.work / file)
                continue
            takes_pixels = seen.interface.preprocess.takes_pixels
            network: nn.Module = PixelInput(graph, seen.preprocess) if takes_pixels else graph
            saved[graph] = run.work / file
            save_program(network, example, saved[graph], dynamic_batch=run.config.batch is None)

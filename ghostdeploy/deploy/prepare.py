"""All that comes before the first converter: golden vectors, fold, conditioning, evidence, the program file."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ghostdeploy.deploy.assemble import Facts
from ghostdeploy.deploy.config import apply_overrides
from ghostdeploy.deploy.evaluate import check_labels
from ghostdeploy.deploy.images import check_class_names
from ghostdeploy.deploy.inputs import Inputs, read_labels, require_logits
from ghostdeploy.deploy.steps import JUDGED_ON_IMAGES, PROGRAM, QUANTIZED
from ghostdeploy.manifest import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import fx, nn

    from ghostdeploy.deploy.config import ExportConfig
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.deploy.reference import Reference, ReferenceModel
    from ghostdeploy.deploy.stages import Stages
    from ghostdeploy.manifest import PassRecord
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.preprocess import Preprocess

CONDITIONING_IMAGES = 256
"""Images whose activation ranges the equalization looks at."""


def prepare(model: LoadedModel, name: str, config: ExportConfig, work: Path, stages: Stages) -> Facts:
    """Brings a model to where converters can start.

    Args:
        model: What was loaded.
        name: Name of the bundles.
        config: The request.
        work: Folder that receives the program file and, for quantized precisions, the evidence.
        stages: Hears the progress.
    """
    from ghostdeploy.deploy.program import PixelInput, save_program
    from ghostdeploy.deploy.reference import Reference
    from ghostdeploy.models.count import count_macs, count_params

    preprocess = apply_overrides(model.preprocess, config.preprocess)
    inputs = Inputs.choose(model, config)
    with stages.stage("golden vectors"):
        reference = Reference(model.module)
        golden = inputs.golden(preprocess)
        outputs = reference.outputs(golden)
        require_logits(outputs, inputs, config)
        num_classes = int(next(iter(outputs.values())).shape[1])
    labels = read_labels(config.labels, model.labels, num_classes)
    if inputs.data is not None:
        check_labels(inputs.data, num_classes)
        check_class_names(inputs.data, labels)
    evidence = look(inputs, config, preprocess, reference, work, stages)
    places = [i % len(golden) for i in range(2 if config.batch is None else config.batch)]
    folded, passes, conditioning = rewrite(reference, golden[places], evidence, preprocess, config, stages)
    payload_spec = apply_overrides(preprocess, {"layout": "nhwc" if config.input == "uint8-nhwc" else "nchw"})
    with stages.stage("save program"):
        graph: nn.Module = folded
        if payload_spec.layout == "nhwc":
            graph, golden = PixelInput(folded, preprocess), inputs.golden(payload_spec)
        save_program(graph, golden[places], work / PROGRAM, dynamic_batch=config.batch is None)
    return Facts(
        model=ModelInfo(
            name=name,
            family=model.family,
            source=model.source,
            weights_sha256=model.weights_sha256,
            num_classes=num_classes,
            params=count_params(reference.module),
            macs=count_macs(folded, (1, 3, preprocess.size, preprocess.size)),
        ),
        preprocess=payload_spec,
        reference_preprocess=preprocess,
        labels=labels,
        reference=reference,
        data=inputs.data,
        inputs=(spec_of(reference.input_name, golden, config.batch, payload_spec.layout),),
        outputs=tuple(spec_of(key, array, config.batch) for key, array in outputs.items()),
        golden_inputs={reference.input_name: golden},
        golden_outputs=outputs,
        passes=passes,
        conditioning=conditioning,
        tools={"ghostdeploy": version("ghostdeploy"), "torch": version("torch")},
        modules=tuple(key for key, _ in reference.module.named_modules() if key),
        evidence=evidence,
    )


def look(
    inputs: Inputs, config: ExportConfig, preprocess: Preprocess, reference: ReferenceModel, work: Path, stages: Stages
) -> Evidence | None:
    """Gathers calibration and gate images for the precisions that need them."""
    if config.precision not in JUDGED_ON_IMAGES or not (inputs.calibration or inputs.data):
        return None
    from ghostdeploy.deploy.quantize.evidence import gather

    with stages.stage("calibration images"):
        return gather(inputs, config, preprocess, reference, work, stages)


def rewrite(
    reference: Reference,
    example: NDArray[Any],
    evidence: Evidence | None,
    preprocess: Preprocess,
    config: ExportConfig,
    stages: Stages,
) -> tuple[fx.GraphModule, tuple[PassRecord, ...], dict[float, PassRecord]]:
    """Folds the module, and conditions the result for quantized precisions."""
    from ghostdeploy.deploy.fold import fold

    with stages.stage("fold"):
        reference.outputs(example)  # some modules drop the batch when it is 1
        folded, certificate = fold(reference.module, example, dynamic_batch=config.batch is None)
    passes = certificate.passes
    if config.align_channels is not None:
        from ghostdeploy.deploy.condition import align

        with stages.stage("align channels"):
            folded, record = align(folded, example, config.align_channels)
        passes = (*passes, record)
    if evidence is None or config.precision not in QUANTIZED:
        return folded, passes, {}
    with stages.stage("condition"):
        conditioning = condition(folded, example, evidence, preprocess)
    return folded, passes, conditioning


def condition(
    folded: fx.GraphModule, example: NDArray[Any], evidence: Evidence, preprocess: Preprocess
) -> dict[float, PassRecord]:
    """Makes the equalized weights that the quantizer chooses from, and leaves the graph as it is."""
    from ghostdeploy.deploy.condition import equalize_all
    from ghostdeploy.deploy.quantize.calibration import read_batches

    size = len(example)  # a graph of fixed batch takes no other

    def batches() -> Iterator[NDArray[Any]]:
        seen = 0
        for batch in read_batches(evidence.calibrated.path, preprocess, size):
            if len(batch) == size:
                yield batch
            seen += len(batch)
            if seen >= CONDITIONING_IMAGES:
                return

    return equalize_all(folded, example, batches(), evidence.conditioned)


def spec_of(name: str, array: Any, batch: int | None, layout: Any = None) -> TensorSpec:
    """Returns the record of a tensor whose first dimension is the batch."""
    return TensorSpec(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]), layout=layout)

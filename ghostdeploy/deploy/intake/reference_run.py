"""What the reference says of the images of an export, whatever format the model came in."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.deploy.intake.batching import fit_batch
from ghostdeploy.deploy.intake.facts import Facts
from ghostdeploy.deploy.intake.inputs import Inputs, classes_of, read_labels, require_logits
from ghostdeploy.deploy.plan.config import apply_overrides
from ghostdeploy.deploy.plan.steps import JUDGED_ON_IMAGES
from ghostdeploy.deploy.prove.class_order import fit_classes, near_chance
from ghostdeploy.deploy.prove.evaluate import Predictions, predict

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import HalfRange, ModelInfo, PassRecord
    from ghostdeploy.deploy.intake.protocol import Described, ReferenceModel
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Stages

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, kw_only=True)
class ReferenceRun:
    """What the reference says of the images of an export."""

    inputs: Inputs
    reference: ReferenceModel
    preprocess: Preprocess
    """As the reference takes an image."""
    payload: Preprocess
    """As the payload takes it."""
    golden: NDArray[Any]
    """Golden inputs of the reference."""
    outputs: Arrays
    num_classes: int
    labels: list[str]
    evidence: Evidence | None
    data: ImageSet | None
    """Labelled images that judge."""
    predictions: Predictions | None
    """The reference's on them."""
    batch_note: str | None = None
    """See `ghostdeploy.deploy.intake.batching`."""

    def facts(
        self,
        model: ModelInfo,
        golden: NDArray[Any],
        passes: dict[str, tuple[PassRecord, ...]],
        config: ExportConfig,
        *,
        tools: tuple[str, ...],
        modules: tuple[str, ...] = (),
        by: dict[float, PassRecord] | None = None,
        half_ranges: dict[str, HalfRange] | None = None,
    ) -> Facts:
        """Returns the facts of the export.

        Args:
            model: The manifest's record.
            golden: Golden inputs of the payload.
            passes: Certificate by program file.
            config: The request.
            tools: Distributions whose versions are recorded.
            modules: Dotted names of the PyTorch modules.
            by: Certificate of the equalization by strength.
            half_ranges: See `Facts`.
        """
        name = self.reference.input_name
        return Facts(
            model=model,
            preprocess=self.payload,
            reference_preprocess=self.preprocess,
            labels=self.labels,
            reference=self.reference,
            data=self.data,
            reference_predictions=self.predictions,
            inputs=(spec_of(name, golden, config.batch, self.payload.layout),),
            outputs=tuple(spec_of(key, array, config.batch) for key, array in self.outputs.items()),
            golden_inputs={name: golden},
            golden_outputs=self.outputs,
            passes=passes,
            conditioning=by or {},
            half_ranges=half_ranges or {},
            tools={tool: version(tool) for tool in tools},
            modules=modules,
            evidence=self.evidence,
            batch_note=self.batch_note,
        )


def run_reference(
    model: Described,
    preprocess: Preprocess,
    reference: ReferenceModel,
    config: ExportConfig,
    work: Path,
    stages: Stages,
) -> ReferenceRun:
    """Chooses the images, runs the reference on the golden ones, and gathers the evidence.

    Args:
        model: What was loaded.
        preprocess: How the reference takes an image.
        reference: The unchanged model.
        config: The request.
        work: Folder that receives the evidence.
        stages: Receives the progress.
    """
    inputs = Inputs.choose(model, config)
    inputs.look(preprocess)
    with stages.stage("golden vectors"):
        golden = inputs.golden(preprocess)
        fitted = fit_batch(reference, golden, config.batch)
        reference = fitted.reference
        outputs = reference.outputs(golden)
        require_logits(outputs, inputs, config)
    labels = read_labels(config.labels, model.labels, classes_of(outputs))
    num_classes = len(labels)
    if inputs.data is not None:
        inputs = replace(inputs, data=fit_classes(inputs.data, labels))
    evidence = look(inputs, config, preprocess, reference, work, stages)
    data = inputs.data if evidence is None else evidence.data
    return ReferenceRun(
        inputs=inputs,
        reference=reference,
        preprocess=preprocess,
        payload=apply_overrides(preprocess, {"layout": "nhwc" if config.input == "uint8-nhwc" else "nchw"}),
        golden=golden,
        outputs=outputs,
        num_classes=num_classes,
        labels=labels,
        evidence=evidence,
        data=data,
        predictions=None if data is None else _predictions(data, evidence, reference, preprocess, num_classes, stages),
        batch_note=fitted.note,
    )


def _predictions(
    data: ImageSet,
    evidence: Evidence | None,
    reference: ReferenceModel,
    preprocess: Preprocess,
    num_classes: int,
    stages: Stages,
) -> Predictions:
    """Returns the reference's predictions of the labelled images, before a converter starts.

    So a damaged image is found in seconds and not after minutes, and nothing is decoded more often than it must be.
    """
    logits = None if evidence is None else evidence.reference_logits()
    if logits is not None and len(logits) == len(data):  # the gate looks at the whole set
        assert data.labels is not None  # fitted
        found = Predictions.of(logits, data.labels)
    else:
        with stages.stage("reference on labelled images"):
            found = predict(reference.logits, data, preprocess, num_classes, stages)
    if (note := near_chance(found.top1_share, data, num_classes, who="the float model")) is not None:
        _log.warning("%s", note)
    return found


def look(
    inputs: Inputs, config: ExportConfig, preprocess: Preprocess, reference: ReferenceModel, work: Path, stages: Stages
) -> Evidence | None:
    """Gathers calibration and gate images for the precisions that need them."""
    if config.precision not in JUDGED_ON_IMAGES or not (inputs.calibration or inputs.data):
        return None
    from ghostdeploy.deploy.quantize.evidence import gather

    with stages.stage("calibration images"):
        return gather(inputs, config, preprocess, reference, work, stages)


def spec_of(name: str, array: Any, batch: int | None, layout: Any = None) -> TensorSpec:
    """Returns the record of a tensor whose first dimension is the batch."""
    return TensorSpec(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]), layout=layout)

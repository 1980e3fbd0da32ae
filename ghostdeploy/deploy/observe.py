"""What the reference says of the images of an export, whatever format the model came in."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ghostdeploy.deploy.assemble import Facts
from ghostdeploy.deploy.config import apply_overrides
from ghostdeploy.deploy.evaluate import check_labels
from ghostdeploy.deploy.images import check_class_names
from ghostdeploy.deploy.inputs import Inputs, read_labels, require_logits
from ghostdeploy.deploy.steps import JUDGED_ON_IMAGES
from ghostdeploy.manifest import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle import Arrays
    from ghostdeploy.deploy.config import ExportConfig
    from ghostdeploy.deploy.intake.model import OnnxModel
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.deploy.reference import ReferenceModel
    from ghostdeploy.deploy.stages import Stages
    from ghostdeploy.manifest import ModelInfo, PassRecord
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Observed:
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
        """
        name = self.reference.input_name
        return Facts(
            model=model,
            preprocess=self.payload,
            reference_preprocess=self.preprocess,
            labels=self.labels,
            reference=self.reference,
            data=self.inputs.data if self.evidence is None else self.evidence.data,
            inputs=(spec_of(name, golden, config.batch, self.payload.layout),),
            outputs=tuple(spec_of(key, array, config.batch) for key, array in self.outputs.items()),
            golden_inputs={name: golden},
            golden_outputs=self.outputs,
            passes=passes,
            conditioning=by or {},
            tools={tool: version(tool) for tool in tools},
            modules=modules,
            evidence=self.evidence,
        )


def observe(
    model: LoadedModel | OnnxModel,
    preprocess: Preprocess,
    reference: ReferenceModel,
    config: ExportConfig,
    work: Path,
    stages: Stages,
) -> Observed:
    """Chooses the images, runs the reference on the golden ones, and gathers the evidence.

    Args:
        model: What was loaded.
        preprocess: How the reference takes an image.
        reference: The unchanged model.
        config: The request.
        work: Folder that receives the evidence.
        stages: Hears the progress.
    """
    inputs = Inputs.choose(model, config)
    inputs.refuse_dark(preprocess)
    with stages.stage("golden vectors"):
        golden = inputs.golden(preprocess)
        outputs = reference.outputs(golden)
        require_logits(outputs, inputs, config)
        num_classes = int(next(iter(outputs.values())).shape[1])
    labels = read_labels(config.labels, model.labels, num_classes)
    if inputs.data is not None:
        check_labels(inputs.data, num_classes)
        check_class_names(inputs.data, labels)
    return Observed(
        inputs=inputs,
        reference=reference,
        preprocess=preprocess,
        payload=apply_overrides(preprocess, {"layout": "nhwc" if config.input == "uint8-nhwc" else "nchw"}),
        golden=golden,
        outputs=outputs,
        num_classes=num_classes,
        labels=labels,
        evidence=look(inputs, config, preprocess, reference, work, stages),
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


def spec_of(name: str, array: Any, batch: int | None, layout: Any = None) -> TensorSpec:
    """Returns the record of a tensor whose first dimension is the batch."""
    return TensorSpec(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]), layout=layout)

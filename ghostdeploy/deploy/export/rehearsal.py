"""What an export would do and what it would refuse, found without converting: `--dry-run`.

The model runs on two images, and a module is captured by `torch.export`, which finds data-dependent control flow. The
passes, and everything that needs the whole calibration set, are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.batches import joined
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.deploy.export.pipeline import refuse_existing
from ghostdeploy.deploy.intake.batching import fit_batch
from ghostdeploy.deploy.intake.inputs import Inputs, read_labels
from ghostdeploy.deploy.intake.task import choose_task
from ghostdeploy.deploy.prove.class_order import fit_classes
from ghostdeploy.deploy.prove.measuring import allowed_drop, images_of
from ghostdeploy.preprocess import Preprocess  # noqa: TC001 - msgspec resolves annotations at run time

if TYPE_CHECKING:
    from ghostdeploy.deploy.export.request import Request
    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.tasks.base import Task

IMAGES = 2


class Plan(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What an export would do."""

    model: str
    family: str
    source: str
    targets: tuple[str, ...]
    """The chain of each target, such as `onnx → openvino`."""
    precision: str
    batch: str
    input: str
    preprocess: Preprocess
    data: str | None
    """Evaluation set of the accuracy gate."""
    max_drop: float
    bundles: tuple[str, ...]
    """Folders it would write."""
    decode: dict[str, Any] | None = None
    """The finished record of a detector's head."""


def plan(asked: Request) -> Plan:
    """Returns what `fulfil` would do; loads the model and runs it, converts nothing, writes nothing.

    Raises:
        GhostDeployError: What `fulfil` would raise before its first conversion.
    """
    config = asked.config
    model = asked.resolve()()
    name = asked.name or model.name
    refuse_existing(config, name)
    inputs = Inputs.choose(model, config)
    task, spec = rehearse(model, inputs, config)
    data, limit = inputs.data, config.top1_drop
    if inputs.labelled is not None:
        data, limit = images_of(inputs.labelled), allowed_drop(task.info.name, config.max_drop)
    return Plan(
        model=name,
        family=model.family,
        source=model.source,
        targets=tuple(" → ".join(link.name for link in targets.chain(row)) for row in config.rows),
        precision=config.precision,
        batch="dynamic" if config.batch is None else str(config.batch),
        input=config.input,
        preprocess=spec,
        data=None if data is None else f"{data.source} ({len(data)} images)",
        max_drop=limit,
        bundles=tuple(str(config.folder(name, row)) for row in config.rows),
        decode=task.info.decode,
    )


def rehearse(model: ExportedModel, inputs: Inputs, config: ExportConfig) -> tuple[Task, Preprocess]:
    """Runs a model as its export begins; returns its task, and how it takes an image.

    Args:
        model: What was loaded.
        inputs: The image sets of the export.
        config: The request.

    Raises:
        CheckpointError: It cannot run on the images, or cannot be recorded.
        DataError: Labels or classes are not the model's, or pixels are not 0 to 255.
        UsageError: See `ExportedModel.preprocess_for`.
    """
    spec, reference = inputs.preprocess_of(model, config), model.reference()
    inputs.look(spec)
    golden = joined(list(inputs.golden_images.sample(IMAGES).batches(spec)))
    outputs = fit_batch(reference, golden, config.batch).reference.outputs(golden)
    task = choose_task(model, inputs, outputs, config, spec)
    labels = read_labels(config.labels, model.labels, task.classes(outputs))
    if inputs.data is not None:
        fit_classes(inputs.data, labels)
    model.rehearse(reference, golden, config)
    return task, spec

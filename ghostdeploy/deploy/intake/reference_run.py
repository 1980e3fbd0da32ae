"""The reference runs: once on the golden images, once on those that judge, before anything is folded or converted."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.batches import by_name
from ghostdeploy.deploy.intake.batching import fit_batch
from ghostdeploy.deploy.intake.inputs import Inputs, read_labels
from ghostdeploy.deploy.intake.protocol import require_other_names
from ghostdeploy.deploy.intake.records import Interface, ReferenceRun
from ghostdeploy.deploy.intake.task import choose_task
from ghostdeploy.deploy.plan.preprocessing import apply_overrides
from ghostdeploy.deploy.plan.steps import JUDGED_ON_IMAGES
from ghostdeploy.deploy.prove.class_order import fit_classes, near_chance
from ghostdeploy.deploy.prove.evaluate import Predictions, predict
from ghostdeploy.deploy.prove.measuring import measure, of_outputs
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.protocol import ExportedModel, ReferenceModel
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.tasks.base import Task
    from ghostdeploy.tasks.measure import Measure

_EXACT = 4
"""Golden images that the reference runs on in float64, which takes as long as many in float32."""

_log = logging.getLogger("ghostdeploy")


def run_reference(model: ExportedModel, reference: ReferenceModel, run: ExportRun) -> ReferenceRun:
    """Chooses the images, runs the reference on the golden ones, and gathers the evidence.

    Args:
        model: What was loaded.
        reference: Its reference.
        run: The export.

    Raises:
        CheckpointError: The reference cannot run on the images.
        DataError: An image set is unusable, or labels or classes are not the model's.
        UsageError: The request does not fit the model.
    """
    config, images = run.config, Inputs.choose(model, run.config)
    preprocess = images.preprocess_of(model, config)
    images.look(preprocess)
    with run.stages.stage("golden vectors"):
        golden = images.golden(preprocess)
        fitted = fit_batch(reference, golden, config.batch)
        reference = fitted.reference
        outputs = reference.outputs(golden)
        error = _own_error(reference, golden[: max(_EXACT, config.batch or 1)], outputs)
        task = choose_task(model, images, outputs, config, preprocess)
        payload = apply_overrides(preprocess, {"layout": "nhwc" if config.input == "uint8-nhwc" else "nchw"})
        taken = by_name(images.golden(payload) if payload.takes_pixels else golden, images.names(reference))
        require_other_names(taken, outputs)
    labels = read_labels(config.labels, model.labels, task.classes(outputs))
    if images.data is not None:
        images = replace(images, data=fit_classes(images.data, labels))
    evidence = _evidence(images, preprocess, reference, run, task, outputs)
    seen = ReferenceRun(
        images=images,
        preprocess=preprocess,
        golden=golden,
        task=task,
        interface=Interface.of(taken, outputs, payload, config.batch, task),
        labels=labels,
        evidence=evidence,
        predictions=None,
        batch_note=fitted.note,
        error=error,
    )
    return replace(seen, predictions=_predictions(seen, reference, run), measure=_measure(seen, reference, run))


def _own_error(reference: ReferenceModel, golden: Batch, outputs: Arrays) -> float | None:
    """Returns the distance of the reference from float64, see `Parity.reference_error`; None where it cannot be run.

    Args:
        reference: In float32.
        golden: Some of the golden inputs, the first ones.
        outputs: Of all golden inputs.
    """
    try:
        exact = reference.in_double()
        wanted = {} if exact is None else exact.outputs(golden.astype(np.float64))
    except CheckpointError:  # a module that makes float32 tensors itself
        return None
    errors = [
        np.abs(np.subtract(outputs[name][: len(one)], one)).max() / (np.abs(one).max() or 1)
        for name, one in wanted.items()
        if one.dtype.kind == "f"
    ]
    return float(max(errors)) if errors else None  # finite, as all outputs are


def _measure(seen: ReferenceRun, reference: ReferenceModel, run: ExportRun) -> Measure | None:
    """Returns the task's measure of the reference, before a converter starts."""
    if (data := seen.images.labelled) is None:
        return None
    if seen.evidence is not None and seen.evidence.labelled is not None:  # the gate looks at the whole set
        return of_outputs(seen.evidence.reference_outputs(), seen.task, data, seen.preprocess, seen.labels)
    with run.stages.stage("reference on labelled images"):
        return measure(reference.outputs, seen.task, data, seen.preprocess, seen.labels, run.stages)


def _evidence(
    images: Inputs, preprocess: Preprocess, reference: ReferenceModel, run: ExportRun, task: Task, golden: Arrays
) -> Evidence | None:
    """Gathers calibration and gate images for the precisions that need them."""
    if run.config.precision not in JUDGED_ON_IMAGES or not (images.calibration or images.data):
        return None
    from ghostdeploy.deploy.quantize.evidence import gather

    with run.stages.stage("calibration images"):
        return gather(images, preprocess, reference, run, task, golden)


def _predictions(seen: ReferenceRun, reference: ReferenceModel, run: ExportRun) -> Predictions | None:
    """Returns the reference's predictions of the labelled images, before a converter starts.

    So a damaged image is found in seconds and not after minutes, and nothing is decoded more often than it must be.
    """
    data, classes = seen.data, len(seen.labels)
    if data is None:
        return None
    (logits,) = (None,) if seen.evidence is None else seen.evidence.reference_outputs().values()
    if logits is not None and len(logits) == len(data):  # the gate looks at the whole set
        assert data.labels is not None  # fitted
        found = Predictions.of(logits, data.labels)
    else:
        with run.stages.stage("reference on labelled images"):
            found = predict(reference.logits, data, seen.preprocess, classes, run.stages)
    if (note := near_chance(found.top1_share, data, classes, who="the float model")) is not None:
        _log.warning("%s", note)
    return found

"""What an export would refuse before its first conversion, found without converting: for `--dry-run`.

The model runs on two images, and a module is recorded as `torch.export` will record it, which is what finds control
flow that depends on values. The passes, and all that takes the whole calibration set, are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.intake.batching import fit_batch
from ghostdeploy.deploy.intake.inputs import classes_of, read_labels, require_logits
from ghostdeploy.deploy.prove.class_order import fit_classes

if TYPE_CHECKING:
    from ghostdeploy.deploy.intake.inputs import Inputs
    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.deploy.plan.config import ExportConfig

IMAGES = 2


def rehearse(model: ExportedModel, inputs: Inputs, config: ExportConfig) -> None:
    """Runs a model as its export begins.

    Args:
        model: What was loaded.
        inputs: The image sets of the export.
        config: The request.

    Raises:
        CheckpointError: It cannot run on the images, or cannot be recorded.
        DataError: Labels or classes are not the model's, or pixels are not 0 to 255.
        UsageError: See `ExportedModel.preprocess_for`.
    """
    spec, reference = model.preprocess_for(config), model.reference()
    inputs.look(spec)
    golden = np.concatenate(list(inputs.golden_images.sample(IMAGES).batches(spec)))
    outputs = fit_batch(reference, golden, config.batch).reference.outputs(golden)
    require_logits(outputs, inputs, config)
    labels = read_labels(config.labels, model.labels, classes_of(outputs))
    if inputs.data is not None:
        fit_classes(inputs.data, labels)
    model.rehearse(reference, golden, config)

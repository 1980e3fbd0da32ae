"""What an export would refuse before its first conversion, found without converting: for `--dry-run`.

The model runs on two images, and a module is recorded as `torch.export` will record it, which is what finds control
flow that depends on values. The passes, and all that takes the whole calibration set, are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.intake.batching import fit_batch
from ghostdeploy.deploy.intake.inputs import classes_of, read_labels, require_logits
from ghostdeploy.deploy.intake.onnx.model import OnnxModel
from ghostdeploy.deploy.plan.config import apply_overrides
from ghostdeploy.deploy.prove.class_order import fit_classes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from ghostdeploy.deploy.intake.inputs import Inputs
    from ghostdeploy.deploy.intake.pytorch.reference import ReferenceModel
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.preprocess import Preprocess

IMAGES = 2


def rehearse(model: LoadedModel | OnnxModel, inputs: Inputs, config: ExportConfig) -> None:
    """Runs a model as its export begins.

    Args:
        model: What was loaded.
        inputs: The image sets of the export.
        config: The request.

    Raises:
        CheckpointError: It cannot run on the images, or cannot be recorded.
        DataError: Labels or classes are not the model's, or pixels are not 0 to 255.
        UsageError: See `prepare` and `prepare_onnx`.
    """
    spec, reference, record = _of_onnx(model, config) if isinstance(model, OnnxModel) else _of_torch(model, config)
    inputs.look(spec)
    golden = np.concatenate(list(inputs.golden_images.sample(IMAGES).batches(spec)))
    outputs = fit_batch(reference, golden, config.batch).reference.outputs(golden)
    require_logits(outputs, inputs, config)
    labels = read_labels(config.labels, model.labels, classes_of(outputs))
    if inputs.data is not None:
        fit_classes(inputs.data, labels)
    record(golden)


def _of_torch(
    model: LoadedModel, config: ExportConfig
) -> tuple[Preprocess, ReferenceModel, Callable[[NDArray[Any]], object]]:
    import torch

    from ghostdeploy.deploy.fold.capture import capture
    from ghostdeploy.deploy.intake.pytorch.reference import Reference

    reference = Reference(model.module, shared=model.shared)

    def record(golden: NDArray[Any]) -> object:
        places = np.arange(2 if config.batch is None else config.batch) % len(golden)
        return capture(reference.module, torch.from_numpy(golden[places]), dynamic_batch=config.batch is None)

    return apply_overrides(model.preprocess, config.preprocess), reference, record


def _of_onnx(
    model: OnnxModel, config: ExportConfig
) -> tuple[Preprocess, ReferenceModel, Callable[[NDArray[Any]], object]]:
    from ghostdeploy.deploy.intake.onnx.branches import decide
    from ghostdeploy.deploy.intake.onnx.prepare import preprocess_of
    from ghostdeploy.deploy.intake.onnx.reference import OnnxReference

    spec = preprocess_of(model, config)
    return spec, OnnxReference(model), lambda _: decide(model.proto, model.name, config.batch, spec.size)

"""Where the model of an export comes from: PyTorch, or a file that a row of the target table accepts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.deploy.plan.requirements import require_export
from ghostdeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.deploy.plan.config import ExportConfig


def resolve_model(
    model: nn.Module | str | Path | None,
    config: ExportConfig,
    *,
    weights: Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
) -> Callable[[], ExportedModel]:
    """Returns what loads the model; loads nothing.

    Args:
        model: A module, a MODEL as on the command line, or the path of an ONNX file; None is the trained sample.
        config: The request.
        weights: Checkpoint file.
        weights_key: Name of the state dict in it.
        num_classes: Outputs of the classifier.

    Raises:
        UsageError: The options have no effect on such a model, or a target cannot be made from it.
        MissingDependency: A package that a target needs is absent.
    """
    if targets.intake_of(weights) is not None:
        raise UsageError(
            f"--weights {weights} is a whole model, expected a checkpoint", hint=f"ghostdeploy export {weights}"
        )
    intake = targets.intake_of(model)
    if intake is not None:
        _refuse_idle_options(config, weights, weights_key, num_classes)
    require_export(config.rows, intake)

    def load() -> ExportedModel:
        if intake is not None:
            from ghostdeploy.deploy.intake.onnx.model import open_onnx

            return open_onnx(Path(str(model)))
        from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
        from ghostdeploy.models.source import from_module, load_model

        if model is None or isinstance(model, str | Path):
            spec = None if model is None else str(model)
            found = load_model(spec, weights=weights, weights_key=weights_key, num_classes=num_classes)
            return PyTorchModel(found)
        return PyTorchModel(from_module(model))

    return load


def _refuse_idle_options(
    config: ExportConfig, weights: Path | None, weights_key: str | None, num_classes: int | None
) -> None:
    """Raises `UsageError` for what only a PyTorch model can be asked."""
    given = (
        ("--weights", weights, "the file contains the weights"),
        ("--weights-key", weights_key, "the file contains the weights"),
        ("--num-classes", num_classes, "the file fixes the classes"),
        ("--align-channels", config.align_channels, "it rewrites the PyTorch graph: give the PyTorch model"),
        ("--skip-pass", config.skip_passes or None, "an ONNX file has its own passes: give the PyTorch model"),
    )
    for option, value, hint in given:
        if value is not None:
            raise UsageError(f"{option} has no effect on an ONNX file", hint=hint)

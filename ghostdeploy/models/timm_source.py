"""Networks of timm (`pip install timm`): the module, and the preprocessing its weights were trained with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from ghostdeploy.errors import CheckpointError, MissingDependency, UsageError, did_you_mean
from ghostdeploy.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TimmModel:
    """A network of timm in eval mode."""

    module: nn.Module
    preprocess: Preprocess
    num_classes: int | None
    pretrained: bool


def create_timm_model(name: str, num_classes: int | None, *, pretrained: bool) -> TimmModel:
    """Builds a network of timm.

    Args:
        name: timm's name, with or without the tag of its weights.
        num_classes: Outputs of the classifier; by default as published.
        pretrained: Fetch the published weights, where there are any, as timm does (from its cache or the network).

    Raises:
        MissingDependency: timm is absent or broken.
        UsageError: timm has no such network.
        CheckpointError: The weights cannot be fetched, or the network takes no square RGB images.
    """
    if not name:
        raise UsageError("MODEL is 'timm:', expected timm:NAME", hint="such as timm:ghostnet_100")
    try:
        timm = import_module("timm")
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision of another build raises the last two
        reason = f"timm:{name} needs the package timm, which cannot be imported ({error})"
        raise MissingDependency(reason, hint="pip install timm") from error
    if not timm.is_model(name):
        otherwise = 'python -c "import timm; print(timm.list_models())" lists them'
        hint = did_you_mean(name.partition(".")[0], timm.list_models(), otherwise=otherwise)
        raise UsageError(f"timm has no model called {name!r}", hint=hint)
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    fetch = pretrained and timm.models.is_model_pretrained(name)
    try:
        module = timm.create_model(name, pretrained=fetch, **options)
    except Exception as error:  # the hub's client passes on whatever its HTTP library raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "download the weights and give them with --weights FILE"
        raise CheckpointError(f"timm:{name} cannot be built: {reason}", hint=hint) from error
    spec = _preprocess(name, timm.data.resolve_model_data_config(module))
    return TimmModel(module.eval(), spec, getattr(module, "num_classes", None), fetch)


_RESIZES: dict[str, Literal["crop", "stretch", "letterbox"]] = {
    "center": "crop",
    "squash": "stretch",
    "border": "letterbox",
}
"""Names of timm's ways to crop."""


def _preprocess(name: str, config: dict[str, Any]) -> Preprocess:
    """Returns the record of timm's own transforms for evaluation.

    timm resizes to ⌊size / crop_pct⌋ where torchvision's recipes round, and pads with the mean in whole pixels.
    """
    channels, height, width = config["input_size"]
    mode, fraction = config.get("crop_mode", "center"), float(config["crop_pct"])
    resize = _RESIZES.get(mode, "crop")
    if channels != 3 or (resize != "crop" and fraction != 1):
        raise CheckpointError(
            f"timm:{name} takes inputs of {config['input_size']}, {mode} with crop_pct {fraction:g}, expected RGB "
            f"images, and crop_pct 1 where not the centre is cropped",
            hint="give it as path/file.py:factory, and its preprocessing with --resize and the options beside it",
        )
    mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
    return Preprocess(
        size=height if height == width else (height, width),
        crop_fraction=fraction,
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=mean,
        std=std,
        resize=resize,
        rounding="floor" if resize == "crop" else "round",
        pad=tuple(round(255 * value) for value in mean) if resize == "letterbox" else 0.0,
    )

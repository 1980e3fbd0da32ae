"""Trained PyTorch modules: the zoo, checkpoint loading, factories, and `ghostify`.

In: a name, a checkpoint or a factory. Out: a module in eval mode with its preprocessing and labels. Never: a fold, an
export, or code from a checkpoint. Importing this package imports no torch.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ghostdeploy.arguments import require_count
from ghostdeploy.models.zoo import ZooEntry, find, list_models

if TYPE_CHECKING:
    from torch import nn

    from ghostdeploy.models.ghost_plug_and_play import ghostify

__all__ = ["ZooEntry", "build", "create_model", "find", "ghostify", "list_models"]


def __getattr__(name: str) -> Any:
    if name == "ghostify":
        from ghostdeploy.models.ghost_plug_and_play import ghostify

        return ghostify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build(entry: ZooEntry, num_classes: int) -> nn.Module:
    """Runs the builder of `entry`; weights are whatever torch's constructors draw."""
    module, _, function = entry.builder.partition(":")
    network: nn.Module = getattr(import_module(module), function)(num_classes=num_classes, **entry.kwargs)
    return network


def create_model(name: str, *, num_classes: int | None = None) -> nn.Module:
    """Builds a zoo model in eval mode, float32, on the CPU.

    Weights are normal with variance gain / fan-in (He et al., ICCV 2015; the gain is the entry's), BatchNorm neutral,
    drawn from a generator seeded by the name: equal calls give equal models, and torch's global generator is left as
    it was.

    Args:
        name: A zoo name, see `list_models`.
        num_classes: Outputs of the classifier; by default as published (1000, for `ghost_vgg16` 10).

    Returns:
        A module from float32 (N, 3, H, W) to logits (N, `num_classes`); state-dict keys as in the official and timm
        checkpoints.

    Raises:
        UsageError: `name` is unknown or `num_classes` is not a positive whole number.
    """
    import torch

    entry = find(name)
    num_classes = entry.num_classes if num_classes is None else require_count("num_classes", num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        model = build(entry, num_classes)
        _initialise(model, entry.gain)
    return model.eval()


def _initialise(model: nn.Module, gain: float) -> None:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(gain / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

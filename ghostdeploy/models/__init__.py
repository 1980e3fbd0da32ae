"""The model zoo, checkpoint loading and `ghostify`. Importing this package imports no torch."""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import TYPE_CHECKING

from ghostdeploy.models.zoo import ZooEntry, find, list_models

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ZooEntry", "build", "create_model", "find", "list_models"]


def build(entry: ZooEntry, num_classes: int) -> nn.Module:
    """Runs the builder of `entry`; weights are whatever torch's constructors draw."""
    module, _, function = entry.builder.partition(":")
    network: nn.Module = getattr(import_module(module), function)(num_classes=num_classes, **entry.kwargs)
    return network


def create_model(name: str, *, num_classes: int = 1000) -> nn.Module:
    """Builds a zoo model in eval mode, float32, on the CPU.

    Weights are Kaiming-normal (fan-in), BatchNorm neutral, drawn from a generator seeded by the name: equal calls give
    equal models, and torch's global generator is left as it was.

    Args:
        name: A zoo name, see `list_models`.
        num_classes: Outputs of the classifier.

    Returns:
        A module from float32 (N, 3, H, W) to logits (N, `num_classes`); state-dict keys as in the official and timm
        checkpoints.

    Raises:
        UsageError: `name` is unknown or `num_classes` is not positive.
    """
    import torch

    from ghostdeploy.errors import UsageError

    entry = find(name)
    if num_classes < 1:
        raise UsageError(f"num_classes is {num_classes}, expected at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        model = build(entry, num_classes)
        _initialise(model)
    return model.eval()


def _initialise(model: nn.Module) -> None:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

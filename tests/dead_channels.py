"""A Ghost network with channels that never fire, as training leaves them.

The primary half's channels 1 and 4 are 0 after their ReLU for every image. Behind them the cheap operation's BatchNorm
has seen zeros alone: running mean 0, running variance 1e-12. What it adds is a constant that the classifier uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEAD = (1, 4)


class Ghost(nn.Module):
    """Half of the maps by a pointwise convolution, the other half from them by a depthwise one."""

    def __init__(self, inputs: int, outputs: int, act: type[nn.Module]) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = nn.Sequential(nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), act())
        self.cheap = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half), act()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], dim=1)


def dead_network(*, variance: float = 1e-12, epsilon: float = 1e-12, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Returns the network for images of 16 pixels and ten classes.

    Args:
        variance: Running variance of the dead channels.
        epsilon: Of the BatchNorms behind them.
        act: Activation; only ReLU makes the channels exactly zero.
    """
    torch.manual_seed(0)
    ghost = Ghost(16, 32, act)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), act())
    network = nn.Sequential(stem, ghost, head)
    with torch.no_grad():
        network[2][2].weight.mul_(8)
        for norm in (ghost.primary[1], ghost.cheap[1]):
            norm.running_var.fill_(0.2)
        for channel in DEAD:
            ghost.primary[1].bias[channel] = -6.0
            ghost.primary[1].weight[channel] = 0.1
            ghost.cheap[1].running_var[channel] = variance
            ghost.cheap[1].bias[channel] = 0.7
        ghost.cheap[1].eps = epsilon
    return network.eval()


def colourful(count: int = 160) -> NDArray[np.uint8]:
    """Returns pictures (N, 16, 16, 3) of different colours with a pattern on them."""
    rng = np.random.default_rng(0)
    colour, pattern = rng.uniform(0, 255, (count, 1, 1, 3)), rng.uniform(-60, 60, (count, 4, 4, 3))
    return np.clip(colour + pattern, 0, 255).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)

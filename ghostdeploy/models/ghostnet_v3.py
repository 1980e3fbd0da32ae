"""GhostNetV3 in its training form: V2 whose convolutions are sums of parallel branches.

    primary 1×1        y = Σ₃ BN(1×1(x))
    cheap depthwise    y = BN(x) + Σ₃ BN(3×3(x)) + BN(1×1(x))
    stride-2 k×k       y = Σ₃ BN(k×k(x)) + BN(1×1(x))           both depthwise

The activation follows the sum. Every sum is one linear convolution, so folding gives exactly the V2 graph. An identity
branch beside the primary convolution needs as many inputs as outputs; no published width has one.
Source: Liu et al., "GhostNetV3: Exploring the Training Strategies for Compact Models", arXiv 2404.11202, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostdeploy.models.blocks import BlockSpec, GhostBottleneck
from ghostdeploy.models.ghostnet import GhostNet
from ghostdeploy.models.ghostnet_v2 import PLAIN_BLOCKS, apply_dfc, dfc_branch

BRANCHES = 3
"""Parallel copies of each k×k convolution."""


class ConvBn(nn.Module):
    """One branch: convolution without bias and BatchNorm. `groups` equal to the channels makes it depthwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns bn(conv(x))."""
        y: Tensor = self.bn1(self.conv(x))
        return y


def depthwise_branches(channels: int, kernel: int, stride: int = 1) -> nn.ModuleList:
    """Returns the parallel depthwise k×k branches."""
    return nn.ModuleList(ConvBn(channels, channels, kernel, stride, channels) for _ in range(BRANCHES))


def branch_sum(x: Tensor, branches: nn.ModuleList, start: Tensor | None = None) -> Tensor:
    """Returns `start` plus the outputs of all branches on `x`."""
    total = start
    for branch in branches:
        total = branch(x) if total is None else total + branch(x)
    if total is None:
        raise ValueError("branch_sum got no branch")
    return total


class GhostModuleV3(nn.Module):
    """Ghost module of parallel branches: (N, `inputs`, H, W) to (N, `outputs`, H, W).

    Args:
        inputs: Input channels.
        outputs: Output channels, even.
        act: Activation after both sums.
        attention: Whether the DFC gate of GhostNetV2 multiplies the result.
    """

    def __init__(self, inputs: int, outputs: int, *, act: type[nn.Module] = nn.ReLU, attention: bool = False) -> None:
        super().__init__()
        primary = outputs // 2
        self.primary_rpr_conv = nn.ModuleList(ConvBn(inputs, primary) for _ in range(BRANCHES))
        self.primary_activation = act()
        self.cheap_rpr_skip = nn.BatchNorm2d(primary)
        self.cheap_rpr_conv = depthwise_branches(primary, 3)
        self.cheap_rpr_scale = ConvBn(primary, primary, groups=primary)
        self.cheap_activation = act()
        self.short_conv = dfc_branch(inputs, outputs) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the primary and the ghost channels, gated where the module has attention."""
        primary = self.primary_activation(branch_sum(x, self.primary_rpr_conv))
        start = self.cheap_rpr_skip(primary) + self.cheap_rpr_scale(primary)
        cheap = self.cheap_activation(branch_sum(primary, self.cheap_rpr_conv, start))
        y = torch.cat([primary, cheap], dim=1)
        return y if self.short_conv is None else apply_dfc(self.short_conv, x, y)


class GhostBottleneckV3(GhostBottleneck):
    """Bottleneck whose stride-2 depthwise convolution is a sum of branches, see `GhostBottleneck`."""

    def add_downsampling(self, spec: BlockSpec) -> None:
        """Registers the stride-2 branches."""
        if spec.stride > 1:
            self.dw_rpr_conv = depthwise_branches(spec.hidden, spec.kernel, spec.stride)
            self.dw_rpr_scale = ConvBn(spec.hidden, spec.hidden, 1, spec.stride, spec.hidden)

    def downsample(self, x: Tensor) -> Tensor:
        """Returns the sum of the stride-2 branches, no activation."""
        return branch_sum(x, self.dw_rpr_conv, self.dw_rpr_scale(x))


def ghost_bottleneck_v3(spec: BlockSpec) -> GhostBottleneckV3:
    """Builds the V3 block: attention in the expansion, except in the first two."""
    return GhostBottleneckV3(
        spec,
        GhostModuleV3(spec.inputs, spec.hidden, attention=spec.index >= PLAIN_BLOCKS),
        GhostModuleV3(spec.hidden, spec.outputs, act=nn.Identity),
    )


def ghostnet_v3(width: float = 1.0, num_classes: int = 1000) -> GhostNet:
    """Builds GhostNetV3 `width`× in training form; keys in timm's spelling (`bn1` inside branches).

    Logits keep their batch axis at batch size 1, which the official code squeezes away.
    """
    return GhostNet(width=width, num_classes=num_classes, bottleneck=ghost_bottleneck_v3)

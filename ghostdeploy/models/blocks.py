"""Building blocks shared by the Ghost families, in the key layout of the official and the timm checkpoints.

    width rule    channels(c, w) = nearest multiple of 4 of c·w, half up, at least 4, plus 4 if below 0.9·c·w
    Ghost module  y = concat(p, c)[:, :out]   with  p = primary(x), c = cheap(p)
                  primary: 1×1 conv + BN (+ ReLU) to ceil(out / s) channels, cheap: depthwise 3×3 + BN (+ ReLU)
    squeeze-excite  y = x · hardsigmoid(W2 · relu(W1 · mean(x) + b1) + b2),  hardsigmoid(v) = relu6(v + 3) / 6
    bottleneck    y = ghost2(se(depthwise(ghost1(x)))) + shortcut(x), depthwise only at stride 2

The slice `[:, :out]` does something only where ceil(out / s)·s ≠ out: it is emitted there and nowhere else.
Source: Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, sections 3.1 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


def round_channels(target: float, divisor: int = 4) -> int:
    """Returns the channel count that all Ghost papers use for a scaled width.

    Args:
        target: Channels of the table times the width multiplier.
        divisor: Every result is a multiple of it.

    Returns:
        The nearest multiple of `divisor` (half up), at least `divisor`, one step up if that is below 0.9 of `target`.
    """
    rounded = max(divisor, int(target + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * target else rounded


@dataclass(frozen=True)
class BlockSpec:
    """One row of a stage table after scaling: what a bottleneck is built from."""

    index: int
    """Number of the bottleneck in the network, from 0."""
    inputs: int
    """Input channels."""
    hidden: int
    """Channels between the two Ghost modules."""
    outputs: int
    """Output channels."""
    kernel: int
    """Kernel of the stride-2 depthwise convolution and of the shortcut's."""
    stride: int
    squeeze: bool
    """Whether squeeze-and-excitation follows the depthwise convolution."""


class SqueezeExcite(nn.Module):
    """Channel gate: (N, C, H, W) to the same shape.

    Args:
        channels: C.
        reduced: Channels of the bottleneck; by default the width rule applied to C / 4.
    """

    def __init__(self, channels: int, reduced: int | None = None) -> None:
        super().__init__()
        reduced = reduced or round_channels(0.25 * channels)
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = nn.ReLU()
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scales each channel by its gate."""
        squeezed = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.conv_expand(self.act1(self.conv_reduce(squeezed))))
        return x * gate


class ConvBnAct(nn.Module):
    """Convolution without bias, BatchNorm, ReLU: (N, C, H, W) to (N, `outputs`, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(bn(conv(x)))."""
        y: Tensor = self.act1(self.bn1(self.conv(x)))
        return y


class GhostModule(nn.Module):
    """Half of the output by a 1×1 convolution, the rest by cheap depthwise filters on that half.

    (N, `inputs`, H, W) to (N, `outputs`, H, W); Han et al., CVPR 2020, section 3.1.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        act: Makes the activation after both halves; `nn.Identity` makes the module linear.
        ratio: s, output channels per primary channel; the Ghost networks use 2.
        cheap_kernel: d, kernel size of the cheap operation; the Ghost networks use 3.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        act: Callable[[], nn.Module] = nn.ReLU,
        ratio: int = 2,
        cheap_kernel: int = 3,
    ) -> None:
        super().__init__()
        primary = ceil(outputs / ratio)
        ghosts = primary * (ratio - 1)
        self.outputs = outputs
        self.sliced = primary + ghosts != outputs
        self.primary_conv = nn.Sequential(nn.Conv2d(inputs, primary, 1, bias=False), nn.BatchNorm2d(primary), act())
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(primary, ghosts, cheap_kernel, 1, cheap_kernel // 2, groups=primary, bias=False),
            nn.BatchNorm2d(ghosts),
            act(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the primary and the ghost channels, primary first."""
        primary = self.primary_conv(x)
        y = torch.cat([primary, self.cheap_operation(primary)], dim=1)
        return y[:, : self.outputs] if self.sliced else y


def shortcut(spec: BlockSpec) -> nn.Sequential:
    """Returns the residual path: empty where shapes agree, else depthwise k×k + BN, 1×1 + BN, without activation."""
    if spec.stride == 1 and spec.inputs == spec.outputs:
        return nn.Sequential()
    return nn.Sequential(
        *depthwise(spec.inputs, spec.kernel, spec.stride),
        nn.Conv2d(spec.inputs, spec.outputs, 1, bias=False),
        nn.BatchNorm2d(spec.outputs),
    )


def depthwise(channels: int, kernel: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Returns a depthwise convolution that halves the map at stride 2, and its BatchNorm."""
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return conv, nn.BatchNorm2d(channels)


class GhostBottleneck(nn.Module):
    """Residual block of two Ghost modules; Han et al., CVPR 2020, figure 3.

    (N, `spec.inputs`, H, W) to (N, `spec.outputs`, H / stride, W / stride).

    Args:
        spec: The row of the stage table.
        ghost1: Expansion, `spec.inputs` to `spec.hidden` channels.
        ghost2: Projection, `spec.hidden` to `spec.outputs` channels, linear.
    """

    def __init__(self, spec: BlockSpec, ghost1: nn.Module, ghost2: nn.Module) -> None:
        super().__init__()
        self.stride = spec.stride
        self.ghost1 = ghost1
        self.add_downsampling(spec)
        self.se = SqueezeExcite(spec.hidden) if spec.squeeze else nn.Identity()
        self.ghost2 = ghost2
        self.shortcut = shortcut(spec)

    def add_downsampling(self, spec: BlockSpec) -> None:
        """Registers what `downsample` runs; called between the two Ghost modules so that keys keep their order."""
        if spec.stride > 1:
            self.conv_dw, self.bn_dw = depthwise(spec.hidden, spec.kernel, spec.stride)

    def downsample(self, x: Tensor) -> Tensor:
        """Halves the map at stride 2 by depthwise convolution and BatchNorm, no activation."""
        y: Tensor = self.bn_dw(self.conv_dw(x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Returns ghost2(se(depthwise(ghost1(x)))) + shortcut(x)."""
        y = self.ghost1(x)
        if self.stride > 1:
            y = self.downsample(y)
        y = self.ghost2(self.se(y))
        total: Tensor = y + self.shortcut(x)
        return total

"""NanoDet-Plus with a GhostNet backbone: GhostPAN and a head of generalized focal loss, keys as in RangiLyu/nanodet.

    backbone   maps at strides 8, 16, 32
    neck       each map to F channels by 1×1; down: upsample ×2, concat, Ghost bottleneck; up: 5×5 stride 2, concat,
               Ghost bottleneck; one more level at stride 64, the sum of two 5×5 convolutions of stride 2
    head       per level two 5×5 depthwise separable convolutions and a 1×1 to C + 4·(R + 1) channels
    output     (N, P, C + 4·(R + 1)), raw: C logits, then R + 1 logits for each of left, top, right, bottom; the points
               P are those of stride 8, row by row, then 16, 32, 64

A box at point (x, y) of stride s is (x·s − l, y·s − t, x·s + r, y·s + b) with l = s·Σ j·softmax(logits)ⱼ: the centre
has no half (the first NanoDet's had). R is `reg_max`.

Modules and keys follow `nanodet/model/{backbone/ghostnet,fpn/ghost_pan,head/nanodet_plus_head,module/conv}.py`
(Apache-2.0), as the public configurations use them: 5×5 depthwise separable convolutions, LeakyReLU 0.1 in neck and
head, bilinear upsampling, one extra level. `aux_fpn` and `aux_head`, which train and never run, may be in a checkpoint.
Source: Li et al., "Generalized Focal Loss", NeurIPS 2020; Lyu, "NanoDet-Plus", 2021.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ghostdeploy.models.blocks import BlockSpec, GhostBottleneck, GhostModule
from ghostdeploy.models.ghost_features import LAST, GhostFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Activation = Callable[[], nn.Module]

KERNEL = 5
STRIDES = (8, 16, 32, 64)
LEAKY: Activation = partial(nn.LeakyReLU, 0.1)
RARE = -4.595
"""Logit of a probability of 0.01: what an untrained head gives every class."""


class ConvModule(nn.Module):
    """1×1 convolution without bias, BatchNorm, activation."""

    def __init__(self, inputs: int, outputs: int, act: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Returns act(bn(conv(x)))."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class DepthwiseConvModule(nn.Module):
    """5×5 depthwise and 1×1 convolution without biases, each with BatchNorm and activation."""

    def __init__(self, inputs: int, outputs: int, act: Activation, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, KERNEL, stride, KERNEL // 2, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dwnorm = nn.BatchNorm2d(inputs)
        self.pwnorm = nn.BatchNorm2d(outputs)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, `inputs`, H, W) to (N, `outputs`, ⌈H / stride⌉, ⌈W / stride⌉)."""
        x = self.act(self.dwnorm(self.depthwise(x)))
        y: Tensor = self.act(self.pwnorm(self.pointwise(x)))
        return y


class GhostBlocks(nn.Module):
    """One Ghost bottleneck: two maps in concatenation, (N, 2·F, H, W), to (N, F, H, W)."""

    def __init__(self, channels: int, act: Activation) -> None:
        super().__init__()
        spec = BlockSpec(0, 2 * channels, channels, channels, KERNEL, stride=1, squeeze=False)
        expand = GhostModule(2 * channels, channels, act=act)
        self.blocks = nn.Sequential(GhostBottleneck(spec, expand, GhostModule(channels, channels, act=nn.Identity)))

    def forward(self, x: Tensor) -> Tensor:
        """Runs the bottleneck."""
        y: Tensor = self.blocks(x)
        return y


class GhostPAN(nn.Module):
    """Path aggregation by Ghost bottlenecks: maps of n strides to n + 1 maps of `channels`, the last half as large."""

    def __init__(self, inputs: Sequence[int], channels: int, act: Activation) -> None:
        super().__init__()
        steps = range(len(inputs) - 1)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear")
        self.reduce_layers = nn.ModuleList(ConvModule(count, channels, act) for count in inputs)
        self.top_down_blocks = nn.ModuleList(GhostBlocks(channels, act) for _ in steps)
        self.downsamples = nn.ModuleList(DepthwiseConvModule(channels, channels, act, 2) for _ in steps)
        self.bottom_up_blocks = nn.ModuleList(GhostBlocks(channels, act) for _ in steps)
        self.extra_lvl_in_conv = nn.ModuleList([DepthwiseConvModule(channels, channels, act, 2)])
        self.extra_lvl_out_conv = nn.ModuleList([DepthwiseConvModule(channels, channels, act, 2)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Returns the maps, largest first."""
        reduced = [layer(one) for layer, one in zip(self.reduce_layers, maps, strict=True)]
        down = [reduced[-1]]
        for block, near in zip(self.top_down_blocks, reversed(reduced[:-1]), strict=True):
            down.insert(0, block(torch.cat([self.upsample(down[0]), near], 1)))
        up = [down[0]]
        for halve, block, far in zip(self.downsamples, self.bottom_up_blocks, down[1:], strict=True):
            up.append(block(torch.cat([halve(up[-1]), far], 1)))
        extra = self.extra_lvl_in_conv[0](reduced[-1]) + self.extra_lvl_out_conv[0](up[-1])
        return [*up, extra]


class Integral(nn.Module):
    """Holds the bins 0 … R under the key that checkpoints have them; boxes are decoded outside of the network."""

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.register_buffer("project", torch.arange(reg_max + 1, dtype=torch.float32))


class NanoDetPlusHead(nn.Module):
    """One map per stride to (N, P, C + 4·(R + 1)), raw."""

    def __init__(self, num_classes: int, channels: int, act: Activation, reg_max: int) -> None:
        super().__init__()
        self.distribution_project = Integral(reg_max)
        self.cls_convs = nn.ModuleList(
            nn.ModuleList(DepthwiseConvModule(channels, channels, act) for _ in range(2)) for _ in STRIDES
        )
        self.gfl_cls = nn.ModuleList(nn.Conv2d(channels, num_classes + 4 * (reg_max + 1), 1) for _ in STRIDES)
        for last in self.gfl_cls:
            nn.init.constant_(last.bias[:num_classes], RARE)  # type: ignore[index]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns the columns of all points, level by level."""
        levels = []
        for x, convs, last in zip(maps, self.cls_convs, self.gfl_cls, strict=True):
            for conv in convs:  # type: ignore[attr-defined]  # a list of modules is typed as a module
                x = conv(x)
            levels.append(last(x).flatten(2))
        return torch.cat(levels, 2).permute(0, 2, 1)


class NanoDetPlus(nn.Module):
    """Detector: float32 (N, 3, H, W), H and W multiples of 32, to (N, P, C + 4·(R + 1)), see the module docstring.

    Args:
        width: Of the GhostNet backbone.
        num_classes: C.
        channels: F, of the neck's and head's maps.
        stages: Of the backbone, at strides 8, 16, 32.
        act: Makes the activations of neck and head; those of the backbone are ReLU.
        reg_max: R.
    """

    def __init__(
        self,
        *,
        width: float,
        num_classes: int,
        channels: int = 96,
        stages: tuple[int, int, int] = (4, 6, LAST),
        act: Activation = LEAKY,
        reg_max: int = 7,
    ) -> None:
        super().__init__()
        self.backbone = GhostFeatures(width, stages)
        self.fpn = GhostPAN(self.backbone.outputs, channels, act)
        self.head = NanoDetPlusHead(num_classes, channels, act, reg_max)
        unbuilt = (f"backbone.blocks.{number}." for number in range(stages[-1] + 1, LAST + 1))
        self.only_in_training = ("aux_fpn.", "aux_head.", *unbuilt)
        """Starts of keys that a checkpoint may have and the detector has no use for."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to the raw columns."""
        y: Tensor = self.head(self.fpn(self.backbone(x)))
        return y


def nanodet_plus_ghost_100(num_classes: int = 80) -> NanoDetPlus:
    """Builds GhostNet 1.0× with NanoDet-Plus-m's neck and head, of 96 channels; made for 320 or 416 px."""
    return NanoDetPlus(width=1.0, num_classes=num_classes)


def ghost_nanodet(num_classes: int = 10) -> NanoDetPlus:
    """Builds the small detector of the samples: GhostNet 0.5× up to its first block at stride 32, 64 channels, ReLU."""
    return NanoDetPlus(width=0.5, num_classes=num_classes, channels=64, stages=(4, 6, 7), act=nn.ReLU)

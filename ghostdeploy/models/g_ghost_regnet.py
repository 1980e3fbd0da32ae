"""G-Ghost-RegNetX: the Ghost idea across the blocks of a stage, for GPUs.

A stage of n blocks and P channels becomes

    x0 = base(x)                                      full-width block, stride 2
    r  = x0[:, :raw],  g = x0[:, raw:]
    y1 = block1(r), …, y(n−2) = block(y(n−3))         blocks at width `raw`
    m  = mix(concat(x0, y1, …, y(n−2)))               global mean → 1×1 + BN + ReLU → 1×1 + BN, one value per channel
    y  = end(concat(y(n−2), relu(cheap(g) + m)))      cheap: 1×1 + BN; end: full-width block

with raw = floor(P / 2 / g′)·g′ for the group width g′ = floor(3/4 · group width). Only stages 2 to 4 with more than two
blocks are built so; stage 3 always. The block is RegNetX's: 1×1, grouped 3×3, 1×1, ReLU after the sum.
Source: Han et al., "GhostNets on Heterogeneous Devices via Cheap Operations", IJCV 2022, and its official code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class RegNetX(NamedTuple):
    """Design of one RegNetX: Radosavovic et al., "Designing Network Design Spaces", CVPR 2020."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    group_width: int


DESIGNS: dict[str, RegNetX] = {
    "002": RegNetX((1, 1, 4, 7), (24, 56, 152, 368), 8),
    "004": RegNetX((1, 2, 7, 12), (32, 64, 160, 384), 16),
    "006": RegNetX((1, 3, 5, 7), (48, 96, 240, 528), 24),
    "008": RegNetX((1, 3, 7, 5), (64, 128, 288, 672), 16),
    "016": RegNetX((2, 4, 10, 2), (72, 168, 408, 912), 24),
    "032": RegNetX((2, 6, 15, 2), (96, 192, 432, 1008), 48),
    "040": RegNetX((2, 5, 14, 2), (80, 240, 560, 1360), 40),
    "064": RegNetX((2, 4, 10, 1), (168, 392, 784, 1624), 56),
    "080": RegNetX((2, 5, 15, 1), (80, 240, 720, 1920), 120),
    "120": RegNetX((2, 5, 11, 1), (224, 448, 896, 2240), 112),
    "160": RegNetX((2, 6, 13, 1), (256, 512, 896, 2048), 128),
    "320": RegNetX((2, 7, 13, 1), (336, 672, 1344, 2520), 168),
}


class Bottleneck(nn.Module):
    """RegNetX block: (N, `inputs`, H, W) to (N, `outputs`, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, group_width: int) -> None:
        super().__init__()
        groups = outputs // min(outputs, group_width)
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(branch(x) + shortcut(x))."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.relu(self.bn3(self.conv3(y)) + self.downsample(x))
        out: Tensor = y
        return out


class GhostStage(nn.Module):
    """A stage of `depth` > 2 blocks in Ghost form: (N, `inputs`, H, W) to (N, `outputs`, H / 2, W / 2)."""

    def __init__(self, inputs: int, outputs: int, *, depth: int, group_width: int) -> None:
        super().__init__()
        narrow = int(0.75 * group_width)
        self.raw = int(0.5 * outputs / narrow) * narrow
        cheap = outputs - self.raw
        self.base = Bottleneck(inputs, outputs, stride=2, group_width=group_width)
        self.end = Bottleneck(outputs, outputs, stride=1, group_width=group_width)
        self.merge = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(outputs + self.raw * (depth - 2), cheap, 1, bias=False),
            nn.BatchNorm2d(cheap),
            nn.ReLU(),
            nn.Conv2d(cheap, cheap, 1, bias=False),
            nn.BatchNorm2d(cheap),
        )
        self.cheap = nn.Sequential(nn.Conv2d(cheap, cheap, 1, bias=False), nn.BatchNorm2d(cheap))
        self.cheap_relu = nn.ReLU()
        self.layers = nn.ModuleList(
            Bottleneck(self.raw, self.raw, stride=1, group_width=narrow) for _ in range(depth - 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Runs the equations of the module docstring."""
        first = self.base(x)
        features = [first]
        intrinsic = first[:, : self.raw]
        for block in self.layers:
            intrinsic = block(intrinsic)
            features.append(intrinsic)
        mixed = self.merge(torch.cat(features, dim=1))
        ghost = self.cheap_relu(self.cheap(first[:, self.raw :]) + mixed)
        y: Tensor = self.end(torch.cat([intrinsic, ghost], dim=1))
        return y


class GGhostRegNet(nn.Module):
    """Image classifier: float32 (N, 3, H, W) to logits (N, `num_classes`).

    Args:
        design: Depths, widths and group width of the RegNetX it is made from.
        num_classes: Outputs of the classifier.
    """

    def __init__(self, design: RegNetX, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        inputs = (32, *design.widths)
        stages: list[nn.Module] = []
        for index, depth in enumerate(design.depths):
            build = _ghost_stage if index > 0 and depth > 2 else _plain_stage
            stages.append(build(inputs[index], inputs[index + 1], depth, design.group_width))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(design.widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits


def _plain_stage(inputs: int, outputs: int, depth: int, group_width: int) -> nn.Sequential:
    first = Bottleneck(inputs, outputs, stride=2, group_width=group_width)
    rest = (Bottleneck(outputs, outputs, stride=1, group_width=group_width) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def _ghost_stage(inputs: int, outputs: int, depth: int, group_width: int) -> GhostStage:
    return GhostStage(inputs, outputs, depth=depth, group_width=group_width)


def g_ghost_regnet(design: str = "032", num_classes: int = 1000) -> GGhostRegNet:
    """Builds G-Ghost-RegNetX `design` (a key of `DESIGNS`); keys as in the official checkpoints without `module.`."""
    return GGhostRegNet(DESIGNS[design], num_classes)

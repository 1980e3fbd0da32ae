"""RegNetX-3.2GF, what G-Ghost-RegNetX-3.2GF was made from: `benchmarks/regnet_x.py:regnetx_032`.

    stem 3×3/2 to 32 → four stages of blocks 1×1, grouped 3×3, 1×1 with a shortcut → mean → linear

Depths 2, 6, 15, 2, widths 96, 192, 432, 1008, groups of 48 channels: 15.3 M parameters, 3.2 G multiply-accumulates.
Source: Radosavovic et al., "Designing Network Design Spaces", CVPR 2020; 78.3 % top-1 in its authors' model zoo.
"""

from __future__ import annotations

import torch
from torch import nn

from ghostdeploy.models.g_ghost_regnet import DESIGNS, Bottleneck

TOP1 = 78.3


def regnetx_032(num_classes: int = 1000) -> nn.Module:
    """Builds the network; weights are whatever torch's constructors draw from a fixed seed."""
    design = DESIGNS["032"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        width = 32
        for depth, outputs in zip(design.depths, design.widths, strict=True):
            for index in range(depth):
                stride = 1 if index else 2
                network.append(Bottleneck(width, outputs, stride=stride, group_width=design.group_width))
                width = outputs
        network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)])
    return network.eval()

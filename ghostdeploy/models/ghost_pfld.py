"""Landmarks in the manner of PFLD: GhostNet, and points regressed from maps of three scales.

    stride 8    Ghost bottleneck, mean over the map
    stride 16   Ghost bottleneck, mean over the map
    whole       a convolution as large as the stride-16 map, BatchNorm, ReLU
    output      linear of the three in concatenation: (N, 2·K), x₀, y₀, x₁, y₁, …, relative to the input: 0 is its left
                or top edge, 1 its right or bottom edge

Source: Guo et al., "PFLD: A Practical Facial Landmark Detector", arXiv 1902.10859, table 1 (the multi-scale fully
connected layer); PFLD_GhostOne has the same head on Ghost blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostdeploy.models.blocks import BlockSpec
from ghostdeploy.models.ghost_features import GhostFeatures
from ghostdeploy.models.ghostnet import ghost_bottleneck

WHOLE = 128
"""Channels of the scale that sees the whole map."""


class GhostPFLD(nn.Module):
    """Landmarks: float32 (N, 3, S, S) to (N, 2·K), relative, see the module docstring.

    Args:
        num_points: K.
        size: S in pixels, a multiple of 16.
        width: Of the GhostNet backbone.
    """

    def __init__(self, num_points: int, *, size: int, width: float) -> None:
        super().__init__()
        self.backbone = GhostFeatures(width, (4, 6))
        near, far = self.backbone.outputs
        self.near = ghost_bottleneck(BlockSpec(0, near, 3 * near, 32, 3, stride=1, squeeze=False))
        self.far = ghost_bottleneck(BlockSpec(1, far, 3 * far, 64, 3, stride=1, squeeze=False))
        self.whole = nn.Sequential(nn.Conv2d(64, WHOLE, size // 16, bias=False), nn.BatchNorm2d(WHOLE), nn.ReLU())
        self.points = nn.Linear(32 + 64 + WHOLE, 2 * num_points)

    def forward(self, x: Tensor) -> Tensor:
        """Maps crops of one object to its points."""
        near, far = self.backbone(x)
        near, far = self.near(near), self.far(far)
        scales = [near.mean((2, 3)), far.mean((2, 3)), self.whole(far).flatten(1)]
        points: Tensor = self.points(torch.cat(scales, 1))
        return points


def ghost_pfld(num_points: int = 8) -> GhostPFLD:
    """Builds the landmark network of the samples: GhostNet 0.5×, 64 px."""
    return GhostPFLD(num_points, size=64, width=0.5)

"""Embeddings in the manner of GhostFaceNets: GhostNet, and a global depthwise convolution in place of the mean.

    1×1 to F channels, BatchNorm, ReLU → depthwise, as large as the map, BatchNorm → 1×1 to D, BatchNorm → (N, D)

The output is not normalised. Source: Chen et al., "MobileFaceNets", arXiv 1804.07573, section 3
(GDConv); Alansari et al., "GhostFaceNets", IEEE Access 2023.
"""

from __future__ import annotations

from torch import Tensor, nn

from ghostdeploy.models.blocks import ConvBnAct
from ghostdeploy.models.ghost_features import GhostFeatures


class GhostEmbed(nn.Module):
    """Embedding: float32 (N, 3, S, S) to (N, D).

    Args:
        dimensions: D.
        size: S in pixels, a multiple of 16.
        width: Of the GhostNet backbone, which ends at stride 16.
        features: F.
    """

    def __init__(self, dimensions: int, *, size: int, width: float, features: int) -> None:
        super().__init__()
        self.backbone = GhostFeatures(width, (6,))
        self.expand = ConvBnAct(self.backbone.outputs[-1], features)
        self.gdc = nn.Sequential(
            nn.Conv2d(features, features, size // 16, groups=features, bias=False), nn.BatchNorm2d(features)
        )
        self.project = nn.Sequential(nn.Conv2d(features, dimensions, 1, bias=False), nn.BatchNorm2d(dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """Maps crops of one object to vectors."""
        (x,) = self.backbone(x)
        y: Tensor = self.project(self.gdc(self.expand(x))).flatten(1)
        return y


def ghost_embed(dimensions: int = 128) -> GhostEmbed:
    """Builds the embedding network of the samples: GhostNet 0.5×, 64 px."""
    return GhostEmbed(dimensions, size=64, width=0.5, features=256)

"""Segmentation in the manner of LR-ASPP, one step finer: GhostNet, a gated head at stride 16, logits at a quarter.

    far     stride 16: relu(bn(1×1(x))) · sigmoid(1×1(mean(x)))
    near    ×2, concat with stride 8, Ghost bottleneck to F; ×2, concat with stride 4, Ghost bottleneck to F
    output  1×1: logits (N, K, H / 4, W / 4), class 0 is the background

Logits are to be resized bilinearly (`align_corners=False`) before the argmax. Source: Howard et al., "Searching for
MobileNetV3", ICCV 2019, figure 10 (LR-ASPP).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostdeploy.models.blocks import BlockSpec, ConvBnAct
from ghostdeploy.models.ghost_features import GhostFeatures
from ghostdeploy.models.ghostnet import ghost_bottleneck


class GhostSegment(nn.Module):
    """Segmenter: float32 (N, 3, H, W), H and W multiples of 16, to logits (N, K, H / 4, W / 4).

    Args:
        num_classes: K, the background among them.
        width: Of the GhostNet backbone.
        features: Channels F of the head.
    """

    def __init__(self, num_classes: int, *, width: float, features: int) -> None:
        super().__init__()
        self.backbone = GhostFeatures(width, (2, 4, 6))
        quarter, eighth, far = self.backbone.outputs
        self.far = ConvBnAct(far, features)
        self.gate = nn.Sequential(nn.Conv2d(far, features, 1), nn.Sigmoid())
        self.eighth = ghost_bottleneck(BlockSpec(0, features + eighth, 2 * features, features, 3, 1, squeeze=False))
        self.quarter = ghost_bottleneck(BlockSpec(1, features + quarter, 2 * features, features, 3, 1, squeeze=False))
        self.classifier = nn.Conv2d(features, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits at a quarter of their size."""
        quarter, eighth, far = self.backbone(x)
        y = self.far(far) * self.gate(far.mean((2, 3), keepdim=True))
        y = self.eighth(torch.cat([doubled(y), eighth], 1))
        y = self.quarter(torch.cat([doubled(y), quarter], 1))
        logits: Tensor = self.classifier(y)
        return logits


def doubled(x: Tensor) -> Tensor:
    """Returns a map (N, C, 2·H, 2·W), bilinear between the centres of pixels."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def ghost_segment(num_classes: int = 11) -> GhostSegment:
    """Builds the segmenter of the samples: GhostNet 0.5×, 64 channels in the head."""
    return GhostSegment(num_classes, width=0.5, features=64)

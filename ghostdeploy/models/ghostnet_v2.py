"""GhostNetV2: V1 with a decoupled fully connected (DFC) attention on the first Ghost module of 14 blocks.

    gate(x) = sigmoid(BN(5×1(BN(1×5(BN(1×1(avgpool2(x))))))))      at half resolution, no activation in between
    ghost1(x) = GhostModule(x) · resize(gate(x), nearest)

The two "fully connected" layers are 5-tap depthwise filters along each axis; the gate is squashed before it is
resized. Blocks 0 and 1 keep the plain module, and ghost2 always does. The map must be at least 2×2 in every
attention block, so images need more than 32 pixels a side.
Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022, section 4.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ghostdeploy.models.blocks import BlockSpec, GhostBottleneck, GhostModule
from ghostdeploy.models.ghostnet import GhostNet

PLAIN_BLOCKS = 2
"""The first blocks stay without attention."""


def dfc_branch(inputs: int, outputs: int) -> nn.Sequential:
    """Returns 1×1, 1×5 and 5×1 convolutions with BatchNorm each: (N, inputs, H, W) to (N, outputs, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.Conv2d(outputs, outputs, (1, 5), 1, (0, 2), groups=outputs, bias=False),
        nn.BatchNorm2d(outputs),
        nn.Conv2d(outputs, outputs, (5, 1), 1, (2, 0), groups=outputs, bias=False),
        nn.BatchNorm2d(outputs),
    )


def apply_dfc(branch: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Returns `y` (N, C, H, W) gated by the attention that `branch` computes from `x` (N, D, H, W)."""
    gate = functional.avg_pool2d(x, 2, 2)
    gate = branch(gate).sigmoid()
    return y * functional.interpolate(gate, size=y.shape[-2:], mode="nearest")


class GhostModuleDFC(GhostModule):
    """Ghost module with DFC attention: (N, `inputs`, H, W) to (N, `outputs`, H, W), H and W at least 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.short_conv = dfc_branch(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the gated primary and ghost channels."""
        return apply_dfc(self.short_conv, x, super().forward(x))


def ghost_bottleneck_v2(spec: BlockSpec) -> GhostBottleneck:
    """Builds the V2 block: attention in the expansion, except in the first two."""
    first = GhostModule if spec.index < PLAIN_BLOCKS else GhostModuleDFC
    return GhostBottleneck(
        spec, first(spec.inputs, spec.hidden), GhostModule(spec.hidden, spec.outputs, act=nn.Identity)
    )


def ghostnet_v2(width: float = 1.0, num_classes: int = 1000) -> GhostNet:
    """Builds GhostNetV2 `width`×; keys as in the official `ck_ghostnetv2_10` and timm's `ghostnetv2_100`."""
    return GhostNet(width=width, num_classes=num_classes, bottleneck=ghost_bottleneck_v2)

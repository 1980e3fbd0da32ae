"""RepGhostNet in its training form: the concatenation of the Ghost module becomes a sum.

    p = act(BN(1×1(x)))                              to all output channels
    y = act(BN(depthwise 3×3(p)) + BN(p))            two linear branches of one tensor, hence one convolution

The stage table is V1's with halved hidden widths (the module makes all hidden channels itself instead of half of
them); blocks 7 and 8 have 120, not 92. Source: Chen et al., "RepGhost: A Hardware-Efficient Ghost Module via
Re-parameterization", arXiv 2211.06088, figures 3 and 5 and table 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from ghostdeploy.models.blocks import BlockSpec, GhostBottleneck
from ghostdeploy.models.ghostnet import GhostNet, Row

STAGES: tuple[tuple[Row, ...], ...] = (
    ((3, 8, 16, False, 1),),
    ((3, 24, 24, False, 2),),
    ((3, 36, 24, False, 1),),
    ((5, 36, 40, True, 2),),
    ((5, 60, 40, True, 1),),
    ((3, 120, 80, False, 2),),
    (
        (3, 100, 80, False, 1),
        (3, 120, 80, False, 1),
        (3, 120, 80, False, 1),
        (3, 240, 112, True, 1),
        (3, 336, 112, True, 1),
    ),
    ((5, 336, 160, True, 2),),
    ((5, 480, 160, False, 1), (5, 480, 160, True, 1), (5, 480, 160, False, 1), (5, 480, 160, True, 1)),
)


class RepGhostModule(nn.Module):
    """Ghost module without concatenation: (N, `inputs`, H, W) to (N, `outputs`, H, W)."""

    def __init__(self, inputs: int, outputs: int, *, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.primary_conv = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), act())
        self.fusion_bn = nn.Sequential(nn.BatchNorm2d(outputs))
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs, bias=False), nn.BatchNorm2d(outputs)
        )
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Returns act(BN(depthwise(p)) + BN(p)) of the primary features p."""
        primary = self.primary_conv(x)
        y: Tensor = self.act(self.cheap_operation(primary) + self.fusion_bn(primary))
        return y


def repghost_bottleneck(spec: BlockSpec) -> GhostBottleneck:
    """Builds the RepGhost block."""
    return GhostBottleneck(
        spec,
        RepGhostModule(spec.inputs, spec.hidden),
        RepGhostModule(spec.hidden, spec.outputs, act=nn.Identity),
    )


def repghostnet(width: float = 1.0, num_classes: int = 1000) -> GhostNet:
    """Builds RepGhostNet `width`× in training form; keys as in the official and timm's checkpoints."""
    return GhostNet(width=width, num_classes=num_classes, bottleneck=repghost_bottleneck, stages=STAGES)

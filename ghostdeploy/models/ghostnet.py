"""C-GhostNet (V1): the stage table and the network skeleton that V2, V3 and RepGhost share.

    stem 3×3 stride 2 → 16 bottlenecks in 9 stages → 1×1 to 960·w → global mean → 1×1 to 1280 → ReLU → classifier

Every width is `round_channels(table · w)`. The global mean comes before the 1280-wide convolution, which
therefore costs one pixel. Source: Han et al., CVPR 2020, table 1 ("GhostNets on Heterogeneous Devices via Cheap
Operations", IJCV 2022, calls the network C-GhostNet).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from ghostdeploy.models.blocks import BlockSpec, ConvBnAct, GhostBottleneck, GhostModule, round_channels

if TYPE_CHECKING:
    from collections.abc import Callable

Row = tuple[int, int, int, bool, int]
"""Kernel, hidden channels, output channels, squeeze-and-excitation, stride; channels at width 1."""

STAGES: tuple[tuple[Row, ...], ...] = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)),
)


class GhostStages(nn.Module):
    """Stem and bottlenecks, without a forward of its own.

    Args:
        width: Multiplier of every channel count.
        bottleneck: Builds one block from its scaled table row.
        stages: The stage table at width 1.
    """

    def __init__(
        self, *, width: float, bottleneck: Callable[[BlockSpec], nn.Module], stages: tuple[tuple[Row, ...], ...]
    ) -> None:
        super().__init__()
        channels = round_channels(16 * width)
        self.conv_stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.blocks = nn.Sequential()
        self.channels: list[int] = []
        """Of the map that each stage returns."""
        index = 0
        for stage in stages:
            blocks: list[nn.Module] = []
            for kernel, hidden, outputs, squeeze, stride in stage:
                scaled = round_channels(hidden * width), round_channels(outputs * width)
                blocks.append(bottleneck(BlockSpec(index, channels, *scaled, kernel, stride, squeeze)))
                channels = scaled[1]
                index += 1
            self.blocks.append(nn.Sequential(*blocks))
            self.channels.append(channels)


class GhostNet(GhostStages):
    """Image classifier: float32 (N, 3, H, W) to logits (N, `num_classes`).

    Args:
        width: Multiplier of every channel count.
        num_classes: Outputs of the classifier.
        bottleneck: Builds one block from its scaled table row.
        stages: The stage table at width 1.
        last: Channels of the last 1×1 convolution at width 1.
    """

    def __init__(
        self,
        *,
        width: float,
        num_classes: int,
        bottleneck: Callable[[BlockSpec], nn.Module],
        stages: tuple[tuple[Row, ...], ...] = STAGES,
        last: int = 960,
    ) -> None:
        super().__init__(width=width, bottleneck=bottleneck, stages=stages)
        features = round_channels(last * width)
        self.blocks.append(nn.Sequential(ConvBnAct(self.channels[-1], features)))
        self.conv_head = nn.Conv2d(features, 1280, 1)
        self.act2 = nn.ReLU()
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes)."""
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        x = x.mean((2, 3), keepdim=True)
        x = self.act2(self.conv_head(x)).flatten(1)
        x = functional.dropout(x, 0.2, self.training)
        logits: Tensor = self.classifier(x)
        return logits


def ghost_bottleneck(spec: BlockSpec) -> GhostBottleneck:
    """Builds the V1 block: two plain Ghost modules."""
    return GhostBottleneck(
        spec,
        GhostModule(spec.inputs, spec.hidden),
        GhostModule(spec.hidden, spec.outputs, act=nn.Identity),
    )


def ghostnet(width: float = 1.0, num_classes: int = 1000) -> GhostNet:
    """Builds C-GhostNet `width`×; keys as in the official `state_dict_73.98.pth` and timm's `ghostnet_100`."""
    return GhostNet(width=width, num_classes=num_classes, bottleneck=ghost_bottleneck)

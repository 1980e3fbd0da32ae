"""C-GhostNet as a backbone: the feature maps of chosen stages, for heads that need more than one class.

    stage     0  1  2  3  4  5   6   7   8   9
    stride    2  4  4  8  8  16  16  32  32  32
    channels  16 24 24 40 40 80  112 160 160 960    times the width

Stage 9 is the 1×1 convolution before the global mean. Keys are those of the classifier, so its checkpoint has all that
a backbone needs; stages after the last chosen one are not built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ghostdeploy.models.blocks import ConvBnAct, round_channels
from ghostdeploy.models.ghostnet import STAGES, GhostStages, ghost_bottleneck

if TYPE_CHECKING:
    from collections.abc import Mapping

LAST = len(STAGES)
"""Number of the stage that is the 1×1 convolution."""


class GhostFeatures(GhostStages):
    """Images (N, 3, H, W) to one map (N, C, H / stride, W / stride) per chosen stage.

    Args:
        width: Multiplier of every channel count.
        stages: Numbers of the stages to return, rising, from 0 to 9.
    """

    def __init__(self, width: float, stages: tuple[int, ...]) -> None:
        super().__init__(width=width, bottleneck=ghost_bottleneck, stages=STAGES[: max(stages) + 1])
        self.stages = stages
        if stages[-1] == LAST:
            self.channels.append(round_channels(960 * width))
            self.blocks.append(nn.Sequential(ConvBnAct(self.channels[-2], self.channels[-1])))

    @property
    def outputs(self) -> list[int]:
        """Channels of each returned map."""
        return [self.channels[stage] for stage in self.stages]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps of the chosen stages, largest first."""
        x = self.act1(self.bn1(self.conv_stem(x)))
        maps = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in self.stages:
                maps.append(x)
        return tuple(maps)

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Copies what a C-GhostNet classifier of the same width has of these stages.

        Args:
            state: Its state dict; batch norm's counts of batches may be missing, as in the shipped samples.
        """
        counted = {key: value for key, value in self.state_dict().items() if key.endswith("num_batches_tracked")}
        self.load_state_dict({key: {**counted, **state}[key] for key in self.state_dict()})

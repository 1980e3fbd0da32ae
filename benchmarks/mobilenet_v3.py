"""MobileNetV3-Large 1.0, the network that GhostNet's paper compares itself with: `benchmarks/mobilenet_v3.py:large`.

    block     1×1 to `expanded` → depthwise k×k, stride → [squeeze-and-excite] → 1×1 to `outputs` (linear) [+ x]
    SE        x · hard_sigmoid(W2 relu(W1 mean(x))),   W1 to a quarter of the channels, in multiples of 8
    head      1×1 to 960 → mean → linear to 1280 → hard swish → linear to the classes

The first block does not expand. BatchNorm after each convolution but those of the gates and the head's last two layers.
5.48 M parameters and 217 M multiply-accumulates in convolutions and linear layers; the paper prints 5.4 M and 219 M.
Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, tables 1 and 3 (75.2 % top-1).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

TOP1 = 75.2


class Row(NamedTuple):
    """One row of the table."""

    kernel: int
    expanded: int
    outputs: int
    gated: bool
    act: type[nn.Module]
    stride: int


RE, HS = nn.ReLU, nn.Hardswish
TABLE = (
    Row(3, 16, 16, False, RE, 1),
    Row(3, 64, 24, False, RE, 2),
    Row(3, 72, 24, False, RE, 1),
    Row(5, 72, 40, True, RE, 2),
    Row(5, 120, 40, True, RE, 1),
    Row(5, 120, 40, True, RE, 1),
    Row(3, 240, 80, False, HS, 2),
    Row(3, 200, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 480, 112, True, HS, 1),
    Row(3, 672, 112, True, HS, 1),
    Row(5, 672, 160, True, HS, 2),
    Row(5, 960, 160, True, HS, 1),
    Row(5, 960, 160, True, HS, 1),
)


class Gate(nn.Module):
    """Squeeze-and-excite on (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        squeezed = max(8, (quarter + 4) // 8 * 8)
        squeezed += 8 if squeezed < 0.9 * quarter else 0  # rounding down may take a tenth at most
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scales each channel by its gate."""
        return x * self.gate(self.expand(self.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    """Inverted residual: (N, `inputs`, H, W) to (N, `row.outputs`, H / stride, W / stride)."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        wide = row.expanded
        self.layers = nn.Sequential()
        if wide != inputs:
            self.layers.extend([*convolution(inputs, wide, 1), row.act()])
        self.layers.extend([*convolution(wide, wide, row.kernel, row.stride, groups=wide)])
        self.layers.extend([row.act(), *([Gate(wide)] if row.gated else []), *convolution(wide, row.outputs, 1)])
        self.residual = row.stride == 1 and inputs == row.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layers' output, plus x where shapes allow."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


def large(num_classes: int = 1000) -> nn.Module:
    """Builds the network; weights are whatever torch's constructors draw from a fixed seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(*convolution(3, 16, 3, 2), HS())
        width = 16
        for row in TABLE:
            network.append(Block(width, row))
            width = row.outputs
        network.extend([*convolution(width, 960, 1), HS(), nn.AdaptiveAvgPool2d(1), nn.Flatten()])
        network.extend([nn.Linear(960, 1280), HS(), nn.Linear(1280, num_classes)])
    return network.eval()

"""ResNet-50, the base of Ghost-ResNet-50.

    stem 7×7 stride 2 → max-pool 3×3 stride 2 → 3, 4, 6, 3 bottlenecks → global mean → classifier

The stride sits in the 3×3 convolution, and keys are torchvision's. Source: He et al., "Deep Residual Learning for
Image Recognition", CVPR 2016, table 1; He et al., "Bag of Tricks", CVPR 2019, figure 2 (b) for the stride.
"""

from __future__ import annotations

from torch import Tensor, nn

EXPANSION = 4
"""Output channels of a bottleneck per channel of its 3×3 convolution."""


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with a residual: (N, `inputs`, H, W) to (N, 4·`width`, H / stride, W / stride)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
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
        out: Tensor = self.relu(self.bn3(self.conv3(y)) + self.downsample(x))
        return out


class ResNet50(nn.Module):
    """Image classifier: float32 (N, 3, H, W) to logits (N, `num_classes`)."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, depth=3, stride=1)
        self.layer2 = _stage(256, 128, depth=4, stride=2)
        self.layer3 = _stage(512, 256, depth=6, stride=2)
        self.layer4 = _stage(1024, 512, depth=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, width: int, *, depth: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(EXPANSION * width, width, 1) for _ in range(depth - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)

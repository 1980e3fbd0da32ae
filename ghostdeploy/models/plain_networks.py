"""The networks whose convolutions `ghostify` was published on: ResNet-50 and VGG-16 for 32×32 images.

ResNet-50, the base of Ghost-ResNet-50:

    stem 7×7 stride 2 → max-pool 3×3 stride 2 → 3, 4, 6, 3 bottlenecks → global mean → classifier

The stride sits in the 3×3 convolution, and keys are torchvision's. Source: He et al., "Deep Residual Learning for
Image Recognition", CVPR 2016, table 1; He et al., "Bag of Tricks", CVPR 2019, figure 2 (b) for the stride.

VGG-16, the base of Ghost-VGG-16:

    13 convolutions 3×3 + BN + ReLU, a 2×2 max-pool after each of the five groups → mean → 512 + BN + ReLU → classifier

15.0 M parameters and 313 M multiply-accumulates at 32×32. Source: Simonyan and Zisserman, "Very Deep Convolutional
Networks", ICLR 2015, configuration D, in the CIFAR form with BatchNorm and one hidden layer that pruning papers use
(Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017) and Han et al., CVPR 2020, table 5, compares with.
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


GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the convolutions between two poolings."""


class VGG16(nn.Module):
    """Image classifier: float32 (N, 3, H, W), H and W at least 32, to logits (N, `num_classes`)."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for group in GROUPS:
            for outputs in group:
                conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes)."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits

"""VGG-16 for 32×32 images, the base of Ghost-VGG-16.

    13 convolutions 3×3 + BN + ReLU, a 2×2 max-pool after each of the five groups → mean → 512 + BN + ReLU → classifier

15.0 M parameters and 313 M multiply-accumulates at 32×32. Source: Simonyan and Zisserman, "Very Deep Convolutional
Networks", ICLR 2015, configuration D, in the CIFAR form with BatchNorm and one hidden layer that pruning papers use
(Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017) and Han et al., CVPR 2020, table 5, compares with.
"""

from __future__ import annotations

from torch import Tensor, nn

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

"""Modules written elsewhere, in other styles, fold by structure alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostdeploy.models.count import count_params
from tests.folding import count_ops, folded, image, randomize, sites


class MobileOneStyleBlock(nn.Module):
    """Branches in lists and dictionaries, some absent; a summing loop that starts at zero; squeeze-excite after it."""

    def __init__(self, inputs, outputs, kernel=3, stride=1, groups=1, copies=4):
        super().__init__()
        self.rbr_skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.rbr_conv = nn.ModuleList(
            nn.ModuleDict(
                {
                    "c": nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
                    "n": nn.BatchNorm2d(outputs),
                }
            )
            for _ in range(copies)
        )
        self.rbr_scale = None
        if kernel > 1:
            self.rbr_scale = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, groups=groups, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        identity = 0 if self.rbr_skip is None else self.rbr_skip(x)
        scale = 0 if self.rbr_scale is None else self.rbr_scale(x)
        out = scale + identity
        for branch in self.rbr_conv:
            out += branch["n"](branch["c"](x))
        return functional.relu(out, inplace=True)


def test_a_mobileone_style_network_becomes_plain_convolutions():
    network = nn.Sequential(
        MobileOneStyleBlock(3, 8, 3, 2),
        MobileOneStyleBlock(8, 8, 3, 1, groups=8),
        MobileOneStyleBlock(8, 16, 1),
        MobileOneStyleBlock(16, 16, 3, 2, groups=16),
        MobileOneStyleBlock(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    graph, certificate = folded(randomize(network), image(2, 3, 17, 19))
    assert count_ops(graph) == {"conv2d": 5, "relu": 5, "adaptive_avg_pool2d": 1, "flatten": 1, "linear": 1}
    assert sites(certificate, "ReparameterizeBranches") == 5
    weights = 8 * 3 * 9 + 8 * 9 + 16 * 8 + 16 * 9 + 16 * 16
    assert count_params(graph) == weights + 8 + 8 + 16 * 3 + 16 * 5 + 5


class Branch(nn.Module):
    def __init__(self, inputs, outputs, kernel, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn(self.conv(x))


class OfficialStyleV3Module(nn.Module):
    """GhostNetV3 in the official layout: skip, scale, three copies per convolution, Identity where no ReLU is."""

    def __init__(self, inputs, outputs, relu, slices):
        super().__init__()
        half = -(-outputs // 2)
        self.oup, self.slices = outputs, slices
        self.primary_rpr_skip = nn.BatchNorm2d(inputs) if inputs == half else None
        self.primary_rpr_conv = nn.ModuleList(Branch(inputs, half, 1) for _ in range(3))
        self.primary_activation = nn.ReLU(inplace=True) if relu else nn.Identity()
        self.cheap_rpr_skip = nn.BatchNorm2d(half)
        self.cheap_rpr_conv = nn.ModuleList(Branch(half, half, 3, half) for _ in range(3))
        self.cheap_rpr_scale = Branch(half, half, 1, half)
        self.cheap_activation = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x):
        x1 = self.primary_rpr_skip(x) if self.primary_rpr_skip is not None else 0
        for index in range(3):
            x1 += self.primary_rpr_conv[index](x)
        x1 = self.primary_activation(x1)
        x2 = self.cheap_rpr_scale(x1) + self.cheap_rpr_skip(x1)
        for index in range(3):
            x2 += self.cheap_rpr_conv[index](x1)
        out = torch.cat([x1, self.cheap_activation(x2)], dim=1)
        return out[:, : self.oup, :, :] if self.slices else out


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 8), (4, 8), (6, 7)])
@pytest.mark.parametrize("relu", [True, False])
def test_an_official_style_v3_module_becomes_two_convolutions(inputs, outputs, relu):
    module = randomize(OfficialStyleV3Module(inputs, outputs, relu, slices=True))
    graph, certificate = folded(nn.Sequential(module, nn.Conv2d(outputs, 3, 1)), image(2, inputs, 9, 9))
    operators = count_ops(graph)
    assert operators["conv2d"] == 3
    assert operators.get("relu", 0) == 2 * relu
    assert operators.get("slice", 0) == outputs % 2
    assert "add" not in operators
    assert sites(certificate, "ReparameterizeBranches") == 2


class OfficialStyleDfc(nn.Module):
    """The attention of GhostNetV2 with the resize written by factors and a computed size."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.short_conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.Conv2d(outputs, outputs, (1, 5), 1, (0, 2), groups=outputs, bias=False),
            nn.BatchNorm2d(outputs),
            nn.Conv2d(outputs, outputs, (5, 1), 1, (2, 0), groups=outputs, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.ghost = OfficialStyleV3Module(inputs, outputs, relu=True, slices=False)

    def forward(self, x):
        res = torch.sigmoid(self.short_conv(functional.avg_pool2d(x, kernel_size=2, stride=2)))
        out = self.ghost(x)
        return out * functional.interpolate(res, size=(out.shape[-2], out.shape[-1]), mode="nearest")


def test_a_dfc_module_folds_all_its_convolutions():
    graph, _ = folded(randomize(OfficialStyleDfc(6, 8)), image(1, 6, 7, 7))
    assert count_ops(graph)["conv2d"] == 5
    assert not {"add", "slice"} & set(count_ops(graph))


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        gate = self.fc2(functional.relu(self.fc1(functional.adaptive_avg_pool2d(x, 1)), inplace=True))
        return x.mul_(functional.relu6(gate.add_(3.0), inplace=True).div_(6.0))


def test_in_place_squeeze_excite_becomes_a_hard_sigmoid():
    network = nn.Sequential(Branch(3, 8, 3), nn.ReLU6(inplace=True), SqueezeExcite(8))
    graph, _ = folded(randomize(network), image(1, 3, 7, 7))
    assert count_ops(graph)["hardsigmoid"] == 1
    assert not any(name.endswith("_") for name in count_ops(graph))


class Backbone(nn.Module):
    """Several outputs in a nest of containers, one of them read further on."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = Branch(3, 8, 3), Branch(8, 8, 3), Branch(8, 8, 1)

    def forward(self, x):
        c2 = self.stem(x)
        c3 = functional.relu(self.left(c2) + self.right(c2))
        return {"c2": c2, "rest": [c3, (c3.mean((2, 3)), functional.max_pool2d(c3, 2))]}


def test_a_backbone_keeps_the_structure_of_its_outputs():
    graph, certificate = folded(randomize(Backbone()), image(2, 3, 10, 10))
    outputs = graph(image(2, 3, 10, 10).double())
    assert list(outputs) == ["c2", "rest"]
    assert [type(part) for part in outputs["rest"]] == [torch.Tensor, tuple]
    assert sites(certificate, "FoldBatchNorm") == 3
    assert sites(certificate, "ReparameterizeBranches") == 1


def test_pre_activation_residual_blocks_fold_what_they_can():
    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.n1, self.c1 = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1, bias=False)
            self.n2, self.c2 = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1, bias=False)

        def forward(self, x):
            return x + self.c2(self.n2(self.c1(self.n1(x).relu())).relu())

    graph, _ = folded(randomize(nn.Sequential(PreActivation(), PreActivation())), image(1, 6, 9, 9))
    assert count_ops(graph) == {"add": 4, "conv2d": 4, "relu": 4, "mul": 2}

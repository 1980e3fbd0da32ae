"""Parallel linear branches become one convolution where that is exact, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.folding import count_ops, folded, image, randomize, sites


class Sum(nn.Module):
    """Adds the results of its branches."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        randomize(self)

    def forward(self, x):
        first, *others = self.branches
        total = first(x)
        for branch in others:
            total = total + branch(x)
        return total


def conv(inputs, outputs, kernel, **options):
    pad = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2 * options.get("dilation", 1)
    layer = nn.Conv2d(inputs, outputs, kernel, padding=pad, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


MERGED = {
    "RepVGG": Sum(conv(6, 6, 3), conv(6, 6, 1), nn.BatchNorm2d(6)),
    "RepVGG at stride 2": Sum(conv(6, 8, 3, stride=2), conv(6, 8, 1, stride=2)),
    "asymmetric kernels": Sum(conv(6, 8, 3), conv(6, 8, (1, 3)), conv(6, 8, (3, 1))),
    "depthwise with identity": Sum(conv(6, 6, 5, groups=6), conv(6, 6, 1, groups=6), nn.Identity()),
    "grouped with depthwise": Sum(conv(6, 6, 3, groups=2), conv(6, 6, 3, groups=6), nn.BatchNorm2d(6)),
    "dilated with pointwise": Sum(conv(6, 6, 3, dilation=2), conv(6, 6, 1), conv(6, 6, 3, dilation=2)),
    "nested": Sum(Sum(conv(6, 6, 3), conv(6, 6, 1)), Sum(nn.BatchNorm2d(6), Sum(conv(6, 6, 1), conv(6, 6, 3)))),
    "normalised sum": nn.Sequential(Sum(conv(6, 6, 3), conv(6, 6, 1)), randomize(nn.BatchNorm2d(6))),
    "a branch that is normalised twice": Sum(conv(6, 6, 3), nn.Sequential(nn.BatchNorm2d(6), nn.BatchNorm2d(6))),
    "one dimension": Sum(nn.Conv1d(6, 6, 3, padding=1), nn.Conv1d(6, 6, 1), nn.BatchNorm1d(6)),
    "padding by name": Sum(nn.Conv2d(6, 6, 3, padding="same"), nn.Conv2d(6, 6, 1, padding="valid")),
    "even kernels around one centre": Sum(nn.Conv2d(6, 6, 2, padding=1), nn.Conv2d(6, 6, 4, padding=2)),
    "more padding than the kernel needs": Sum(nn.Conv2d(6, 6, 3, padding=2), nn.Conv2d(6, 6, 1, padding=1)),
}


@pytest.mark.parametrize("kind", MERGED)
def test_branches_become_one_convolution(kind):
    size = (2, 6, 9) if kind == "one dimension" else (2, 6, 9, 7)
    graph, certificate = folded(MERGED[kind], image(*size))
    operators = count_ops(graph)
    assert list(operators.values()) == [1]
    assert sites(certificate, "ReparameterizeBranches") == 1


KEPT = {
    "an activation in a branch": Sum(conv(6, 6, 3), nn.Sequential(conv(6, 6, 1), nn.ReLU())),
    "kernels off one centre": Sum(nn.Conv2d(6, 6, 2, 2, padding=1), nn.Conv2d(6, 6, 3, 2, padding=1)),
    "other dilations": Sum(conv(6, 6, 3), conv(6, 6, 3, dilation=2)),
    "a dense pointwise beside a depthwise": Sum(conv(12, 12, 3, groups=12), conv(12, 12, 1)),
    "transposed convolutions": Sum(nn.ConvTranspose2d(6, 6, 3, padding=1), nn.ConvTranspose2d(6, 6, 1)),
    "reflected border": Sum(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"), nn.Conv2d(6, 6, 1)),
}


@pytest.mark.parametrize("kind", KEPT)
def test_branches_that_are_no_single_convolution_stay(kind):
    channels = 12 if "dense" in kind else 6
    graph, certificate = folded(KEPT[kind], image(2, channels, 9, 7))
    assert count_ops(graph)["add"] == 1
    assert sites(certificate, "ReparameterizeBranches") == 0


def test_an_activation_after_the_sum_stays_where_it_is():
    network = nn.Sequential(MERGED["RepVGG"], nn.ReLU(), MERGED["depthwise with identity"], nn.Hardswish())
    assert list(count_ops(folded(network, image(1, 6, 5, 5))[0])) == ["conv2d", "relu", "hardswish"]


def test_a_broadcast_sum_is_no_branch():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 1, 1)

        def forward(self, x):
            return self.a(x) + self.b(x)

    assert count_ops(folded(Gate(), image(1, 6, 5, 5))[0]) == {"conv2d": 2, "add": 1}


def test_branches_of_other_tensors_stay_terms_of_the_sum():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body = conv(6, 6, 3), Sum(conv(6, 6, 3), conv(6, 6, 1))

        def forward(self, x):
            y = self.stem(x).relu()
            return self.body(y) + x

    graph, certificate = folded(randomize(Residual()), image(1, 6, 7, 7))
    assert count_ops(graph) == {"conv2d": 2, "relu": 1, "add": 1}
    assert sites(certificate, "ReparameterizeBranches") == 1


def test_a_branch_that_is_read_elsewhere_stays():
    class Tapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(6, 6, 3), conv(6, 6, 1), conv(6, 6, 1)

        def forward(self, x):
            tap = self.a(x)
            return {"tap": tap, "sum": [self.b(x) + tap + self.c(x), tap * 2]}

    graph, _ = folded(randomize(Tapped()), image(1, 6, 7, 7))
    assert count_ops(graph) == {"conv2d": 2, "add": 1, "mul": 1}


def test_a_sum_that_is_read_elsewhere_merges_alone():
    class Tapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(6, 6, 3), conv(6, 6, 1), conv(6, 6, 1)

        def forward(self, x):
            inner = self.a(x) + self.b(x)
            return inner, inner + self.c(x)

    assert count_ops(folded(randomize(Tapped()), image(1, 6, 7, 7))[0]) == {"conv2d": 2, "add": 1}


def test_one_convolution_added_to_itself_is_exact():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(6, 6, 3), conv(6, 6, 1)

        def forward(self, x):
            y = self.a(x)
            return y + y + self.b(x) + self.b(x) + x + x

    folded(randomize(Twice()), image(1, 6, 7, 7))


def test_a_scaled_sum_of_scaled_branches_is_exact():
    class LayerScale(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(6, 6, 3), conv(6, 6, 1)
            self.scale = nn.Parameter(torch.linspace(-1, 1, 6).reshape(6, 1, 1))
            self.shift = nn.Parameter(torch.linspace(0, 1, 6).reshape(1, 6, 1, 1))

        def forward(self, x):
            return (self.a(x) * self.scale + (self.b(x) + self.shift)) * self.scale + x * self.scale

    graph, _ = folded(randomize(LayerScale()), image(1, 6, 7, 7))
    assert count_ops(graph)["conv2d"] == 1

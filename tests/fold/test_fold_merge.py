"""Linear layers in a row and activations on resized maps: fewer operations, the same function, or left alone."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn import functional

from ghostdeploy.models.count import count_macs
from tests.folding import count_ops, folded, image, randomize, sites

pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning")

MERGED = {
    "1x1 and 1x1": (nn.Conv2d(6, 12, 1), nn.Conv2d(12, 4, 1)),
    "with BatchNorm between": (nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12), nn.Conv2d(12, 4, 1)),
    "padded 3x3 at stride 2, then 1x1": (nn.Conv2d(6, 12, 3, 2, 1), nn.Conv2d(12, 4, 1)),
    "dilated, no bias anywhere": (nn.Conv2d(6, 9, 3, dilation=2, bias=False), nn.Conv2d(9, 9, 1, bias=False)),
    "bias in the second alone": (nn.Conv2d(6, 9, 3, bias=False), nn.Conv2d(9, 9, 1)),
    "three in a row": (nn.Conv2d(6, 20, 1), nn.Conv2d(20, 10, 1), nn.Conv2d(10, 4, 1)),
    "on vectors": (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 12), nn.Linear(12, 4)),
}


@pytest.mark.parametrize("kind", MERGED)
def test_layers_in_a_row_become_one(kind):
    network = randomize(nn.Sequential(*MERGED[kind]))
    graph, certificate = folded(network, image(2, 6, 9, 8))

    layers = sum(count_ops(graph).get(name, 0) for name in ("conv2d", "linear"))
    assert layers == 1
    assert sites(certificate, "MergeLayers") == sum(isinstance(one, nn.Conv2d | nn.Linear) for one in network) - 1


def test_merging_saves_multiplications():
    network = nn.Sequential(nn.Conv2d(6, 12, 3, 1, 1), nn.Conv2d(12, 4, 1)).eval()
    graph, _ = folded(network, image(1, 6, 9, 8))

    assert count_macs(graph.float(), (1, 6, 9, 8)) == 4 * 6 * 9 * 72
    assert count_macs(network, (1, 6, 9, 8)) == (12 * 6 * 9 + 12 * 4) * 72


APART = {
    "a bottleneck": (nn.Conv2d(16, 2, 1), nn.Conv2d(2, 16, 1)),
    "an activation between": (nn.Conv2d(6, 12, 1), nn.ReLU(), nn.Conv2d(12, 4, 1)),
    "a second layer that reads padding": (nn.Conv2d(6, 12, 1), nn.Conv2d(12, 4, 1, padding=1)),
    "a second layer with a kernel": (nn.Conv2d(6, 12, 1), nn.Conv2d(12, 4, 3)),
    "depthwise then dense": (nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)),
    "the two filters of a DFC branch": (
        nn.Conv2d(6, 6, (1, 5), padding=(0, 2), groups=6),
        nn.Conv2d(6, 6, (5, 1), padding=(2, 0), groups=6),
    ),
}


@pytest.mark.parametrize("kind", APART)
def test_layers_stay_apart_for(kind):
    graph, certificate = folded(nn.Sequential(*APART[kind]).eval(), image(2, 16 if "bottle" in kind else 6, 9, 8))

    assert sites(certificate, "MergeLayers") == 0
    assert count_ops(graph)["conv2d"] == 2


def test_a_first_layer_that_something_else_reads_stays():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

        def forward(self, x):
            y = self.first(x)
            return self.second(y) * y

    _, certificate = folded(Fork(), image(1, 6, 5, 5))

    assert sites(certificate, "MergeLayers") == 0


class Resized(nn.Module):
    def __init__(self, activation, mode="nearest"):
        super().__init__()
        self.activation, self.mode = activation, mode

    def forward(self, x):
        return self.activation(functional.interpolate(x * 2, size=(10, 7), mode=self.mode))


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Hardsigmoid(), nn.ReLU6(), nn.SiLU(), nn.Tanh()])
def test_an_activation_goes_in_front_of_a_nearest_resize(activation):
    graph, certificate = folded(Resized(activation), image(2, 3, 5, 4))

    assert sites(certificate, "ResizeLast") == 1
    assert "upsample" in [node.name for node in graph.graph.nodes][-2]  # the last call


@pytest.mark.parametrize(("activation", "mode"), [(nn.Sigmoid(), "bilinear"), (nn.Softmax(1), "nearest")])
def test_what_does_not_commute_with_the_resize_stays(activation, mode):
    _, certificate = folded(Resized(activation, mode), image(2, 3, 5, 4))

    assert sites(certificate, "ResizeLast") == 0

"""Concatenations of narrow Ghost modules that become part of their depthwise filters: exact, and only where it pays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes import default_passes, named_passes
from ghostdeploy.deploy.fold.passes.depthwise_concat import LANES
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.models.count import count_macs
from tests.folding import Ghost, Residual, count_ops, image, randomize, rewritten, sites

pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning")
NAME = "DepthwiseConcat"


def count_sites(network: nn.Module, inputs: int = 6, side: int = 24, name: str = NAME) -> int:
    return sites(rewritten(network, image(2, inputs, side, side), names=(name,))[1], NAME)


ACTIVATIONS = {
    "relu": nn.ReLU,
    "none": nn.Identity,
    "relu6": nn.ReLU6,
    "clamped": lambda: nn.Hardtanh(-0.3, 0.7),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("outputs", [4, 12, LANES])
def test_a_narrow_ghost_module_is_one_depthwise_filter(kind, outputs):
    graph, certificate = rewritten(Ghost(6, outputs, ACTIVATIONS[kind]), image(2, 6, 24, 24), names=(NAME,))

    assert sites(certificate, NAME) == 1
    assert "cat" not in count_ops(graph)
    assert count_ops(graph)["conv2d"] == 2


def test_an_activation_of_the_first_half_alone_stays_there():
    class Half(Ghost):
        def __init__(self):
            super().__init__(6, 16, nn.Hardswish)
            self.cheap = self.cheap[:2]

    graph, certificate = rewritten(Half(), image(2, 6, 24, 24), names=(NAME,))

    assert sites(certificate, NAME) == 1
    assert count_ops(graph)["hardswish"] == 1


def test_the_sum_with_the_shortcut_reads_the_joined_map():
    graph, certificate = rewritten(Residual(Ghost(16, 16, nn.Identity)), image(2, 16, 24, 24), names=(NAME,))

    assert sites(certificate, NAME) == 1
    assert count_ops(graph) == {"conv2d": 2, "add": 1}


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (5, 1), (3, 2), ((1, 5), 1)])
def test_filters_of_other_sizes_get_their_centre(kernel, dilation):
    class Wide(Ghost):
        def __init__(self):
            super().__init__(6, 8)
            self.cheap[0] = nn.Conv2d(4, 4, kernel, padding="same", dilation=dilation, groups=4)

    assert count_sites(Wide()) == 1


class Swapped(Ghost):
    def forward(self, x):
        first = self.primary(x)
        return torch.cat([self.cheap(first), first], 1)


class Shared(Ghost):
    def forward(self, x):
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1), first.sum()


class Three(Ghost):
    def forward(self, x):
        first = self.primary(x)
        return torch.cat([first, self.cheap(first), first], 1)


class Other(Ghost):
    def forward(self, x):
        first = self.primary(x)
        return torch.cat([torch.relu(x[:, : first.shape[1]]), self.cheap(first)], 1)


class Grouped(Ghost):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.primary[0] = nn.Conv2d(inputs, outputs // 2, 1, groups=2)


KEPT = {
    "a second activation that is not idempotent": lambda: Ghost(6, 16, nn.Hardswish),
    "halves in the other order": lambda: Swapped(6, 16),
    "another reader of the first half": lambda: Shared(6, 16),
    "three parts": lambda: Three(6, 16),
    "a first half from elsewhere": lambda: Other(16, 16),
    "a first layer with groups": lambda: Grouped(6, 16),
    "more channels than a vector holds": lambda: Ghost(6, 4 * LANES),
}


@pytest.mark.parametrize("kind", KEPT)
def test_the_concatenation_stays_for(kind):
    assert count_sites(KEPT[kind](), 16 if "elsewhere" in kind else 6) == 0


@pytest.mark.parametrize(("outputs", "found"), [(16, (1, 1)), (20, (0, 1)), (32, (0, 0)), (128, (0, 0))])
def test_engines_with_blocks_pay_more_for_a_copy_of_parts_that_are_none(outputs, found):
    assert tuple(count_sites(Ghost(12, outputs), 12, 112, name) for name in (NAME, f"{NAME}-8")) == found


@pytest.mark.parametrize(("inputs", "count"), [(24, 1), (480, 0)])
def test_a_small_map_with_many_weights_is_joined_because_reading_them_costs_more(inputs, count):
    assert count_sites(Ghost(inputs, 80), inputs, 2) == count


def test_a_whole_network_keeps_its_function_and_grows_by_next_to_nothing():
    network, example = randomize(gd.create_model("ghostnet_050")), image(1, 3, 224, 224)
    plain, _ = fold(network, example)
    graph, certificate = fold(network, example, passes=[*default_passes(), *named_passes([NAME])])

    assert sites(certificate, NAME) == 4
    assert certificate.max_relative_error <= FOLD_RELATIVE_ERROR
    assert count_ops(graph)["cat"] == count_ops(plain)["cat"] - 4
    macs = [count_macs(one, (1, 3, 224, 224)) for one in (plain, graph)]
    assert macs[0] < macs[1] < 1.1 * macs[0]


def test_a_free_batch_stays_free():
    graph, _ = fold(
        randomize(Ghost(6, 16)),
        image(2, 6, 24, 24),
        dynamic_batch=True,
        passes=[*default_passes(), *named_passes([NAME])],
    )

    with torch.no_grad():
        assert graph(image(5, 6, 24, 24)).shape == (5, 16, 24, 24)

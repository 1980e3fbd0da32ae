"""Equalization changes ranges, never the function."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes.equalize_channels import EqualizeChannels, coupled_by_scale
from ghostdeploy.deploy.fold.passes.graph import calls, op_name
from ghostdeploy.deploy.fold.passes.precision import run
from ghostdeploy.deploy.fold.passes.proof import apply
from ghostdeploy.deploy.fold.passes.value_ranges import channel_ranges
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.errors import CheckpointError, DataError, GateFailed
from ghostdeploy.models import create_model
from tests.equalizing import SAMPLES, Call, equalize, equalized, load, random
from tests.folding import image, randomize
from tests.further import further

FAMILIES = ("ghostnet_050", "ghostnetv2_100", "repghostnet_050", "g_ghost_regnetx_002", "ghost_vgg16")


@pytest.fixture(scope="module", params=further(SAMPLES, usual=SAMPLES[:1]))
def trained(request):
    return load(request.param)


def free_nodes(graph):
    """The calls whose channels may take factors, by operation."""
    coupled = coupled_by_scale(graph)
    return [op_name(node) for node in coupled.nodes if not coupled.is_pinned(node)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_stays_exact_and_all_its_layers_take_part(name):
    graph, _, sites = equalized(randomize(create_model(name)), 2, 3, 64, 64)
    layers = [node for node in calls(graph) if op_name(node) in {"conv2d", "linear"}]
    assert sites == len(layers)


def test_float32_logits_of_the_trained_samples_stay(trained):
    result, record = equalize(trained.graph, trained.batch[:2], [trained.batch])
    assert record.max_relative_error <= FOLD_RELATIVE_ERROR
    assert {parameter.dtype for parameter in result.parameters()} == {torch.float32}
    with torch.no_grad():
        before, after = trained.graph(trained.images), result(trained.images)
    assert (before - after).abs().max() <= 1e-5 * before.abs().max()


def test_the_graph_given_is_not_changed():
    graph, _ = fold(random(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), image(1, 3, 8, 8))
    before = {key: value.clone() for key, value in graph.state_dict().items()}
    equalize(graph, image(1, 3, 8, 8), [image(4, 3, 8, 8)])
    assert all(torch.equal(value, before[key]) for key, value in graph.state_dict().items())


MIDDLES = {
    "relu": (nn.ReLU(),),
    "leaky": (nn.LeakyReLU(0.1),),
    "prelu": (nn.PReLU(8),),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU()),
    "multiplier": (nn.Conv2d(8, 24, 3, groups=8), nn.ReLU(), nn.Conv2d(24, 8, 1)),
    "grouped": (nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=2, bias=False)),
    "transposed": (nn.ConvTranspose2d(8, 12, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(12, 8, 2, groups=4)),
    "pools": (nn.MaxPool2d(2), nn.AvgPool2d(2, padding=1), nn.Upsample(scale_factor=2, mode="nearest")),
    "concat": (Call(lambda x: torch.cat([x, functional.relu(x), x], dim=1)[:, 3:11]),),
    "concat of heights": (Call(lambda x: torch.cat([x, 2 * x], dim=2)),),
    "slices": (Call(lambda x: x[:, 2:6] + x[:, 4:8]), nn.Conv2d(4, 8, 1)),
    "sum and difference": (Call(lambda x: functional.relu(x) - 0.5 * x + x / 4),),
    "maximum": (Call(lambda x: torch.maximum(x, functional.avg_pool2d(x, 3, 1, 1))),),
    "reduced": (Call(lambda x: x + x.mean((2, 3), keepdim=True) + x.amax(3, keepdim=True)),),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_what_lets_a_factor_through(name):
    graph, _, sites = equalized(random(nn.Conv2d(3, 8, 3), *MIDDLES[name], nn.Conv2d(8, 4, 1)), 2, 3, 16, 16)
    layers = [node for node in calls(graph) if "conv" in op_name(node)]
    assert sites == len(layers)
    assert len(free_nodes(graph)) == len(list(calls(graph))) - 1  # only the output is held


HOLDERS = {
    "sigmoid": nn.Sigmoid(),
    "hardswish": nn.Hardswish(),
    "relu6": nn.ReLU6(),
    "gelu": nn.GELU(),
    "softmax": nn.Softmax(dim=1),
    "constant": Call(lambda x: x + 1.5),
    "square": Call(lambda x: x * x),
    "mean over channels": Call(lambda x: x - x.mean(1, keepdim=True)),
    "shuffle": nn.ChannelShuffle(2),
    "turned": Call(lambda x: x.transpose(2, 3)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_holds_its_channels(name):
    graph, _, sites = equalized(random(nn.Conv2d(3, 8, 3), HOLDERS[name], nn.Conv2d(8, 4, 1)), 2, 3, 16, 16)
    assert sites == 0
    assert free_nodes(graph) == []


def test_a_gate_keeps_its_scale_and_what_it_gates_is_free():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.gate, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = functional.relu(self.first(x))
            return self.last(self.gate(y.mean((2, 3), keepdim=True)) * y * torch.sigmoid(self.gate(y)))

    torch.manual_seed(0)
    graph, _, sites = equalized(Gated(), 2, 3, 16, 16)
    free = free_nodes(graph)
    assert free.count("mul") == 2
    assert "sigmoid" not in free
    assert free.count("conv2d") == 1  # the first: both gates and the output hold
    assert sites == 4


def test_a_map_flattened_into_a_linear_layer_and_a_linear_chain():
    network = random(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10), nn.ReLU(), nn.Linear(10, 3))
    assert equalized(network, 2, 3, 8, 8)[2] == 3


def test_a_linear_layer_over_tokens_holds():
    network = random(nn.Conv2d(3, 8, 3), nn.ReLU(), Call(lambda x: x.flatten(2)), nn.Linear(36, 5), nn.Linear(5, 3))
    assert equalized(network, 2, 3, 8, 8)[2] == 0


def test_no_image_is_refused():
    graph, _ = fold(nn.Conv2d(3, 5, 3), image(1, 3, 8, 8))
    with pytest.raises(DataError, match="the calibration set has no images"):
        equalize(graph, image(1, 3, 8, 8), [])


def test_nan_in_an_activation_is_named():
    graph, _ = fold(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), image(1, 3, 8, 8))
    bad = image(2, 3, 8, 8)
    bad[1, 2, 3, 4] = float("nan")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        equalize(graph, image(1, 3, 8, 8), [bad])


class Inexact(EqualizeChannels):
    """Notes other factors than it applies."""

    def run(self, module):
        result = super().run(module)
        for node in calls(module):
            if "scaled" in node.meta:
                node.meta["scaled"] = node.meta["scaled"] * (1 + 1e-6)
        return result


def test_factors_that_were_noted_but_not_applied_fail_the_proof():
    network = random(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    inputs = (image(1, 3, 8, 8).double(),)
    graph, _ = fold(network, inputs)
    ranges = channel_ranges(graph, inputs)
    with pytest.raises(GateFailed, match=r"EqualizeChannels changed the output by 1\.0e-06 of its size at conv2d"):
        apply(Inexact(ranges), graph, inputs, run(graph, inputs))

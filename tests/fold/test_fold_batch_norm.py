"""BatchNorm folds into the layer next to it exactly, or becomes a multiplication and an addition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostdeploy.deploy.fold.fold import fold
from tests.folding import count_ops, folded, image, randomize


class Network(nn.Module):
    """Modules by name, and a forward given as a function of them."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.steps = forward
        for name, module in modules.items():
            self.add_module(name, module)
        randomize(self)

    def forward(self, x):
        return self.steps(self, x)


LAYERS = {
    "conv": (nn.Conv2d(6, 9, 3, 2, 1, bias=False), (2, 6, 9, 7)),
    "conv with bias": (nn.Conv2d(6, 9, 3, padding=2, dilation=2), (2, 6, 9, 7)),
    "grouped conv": (nn.Conv2d(6, 9, 3, groups=3), (2, 6, 9, 7)),
    "depthwise conv with multiplier": (nn.Conv2d(6, 12, (1, 5), padding=(0, 2), groups=6), (2, 6, 9, 7)),
    "conv with the same size": (nn.Conv2d(6, 9, 3, padding="same"), (2, 6, 9, 7)),
    "conv with valid outputs": (nn.Conv2d(6, 9, 3, padding="valid"), (2, 6, 9, 7)),
    "conv with reflected border": (nn.Conv2d(6, 9, 3, padding=1, padding_mode="reflect"), (2, 6, 9, 7)),
    "conv1d": (nn.Conv1d(6, 9, 3, padding=1), (2, 6, 11)),
    "conv3d": (nn.Conv3d(6, 9, 3, padding=1), (2, 6, 4, 5, 6)),
    "transposed conv": (nn.ConvTranspose2d(6, 9, 3, 2, 1, output_padding=1), (2, 6, 5, 4)),
    "grouped transposed conv": (nn.ConvTranspose2d(6, 9, 3, 2, 1, groups=3, bias=False), (2, 6, 5, 4)),
    "linear": (nn.Linear(6, 9), (5, 6)),
}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@pytest.mark.parametrize("kind", LAYERS)
def test_batch_norm_after_a_layer_disappears(kind):
    layer, size = LAYERS[kind]
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    norm = NORMS[len(size)](channels)
    graph, _ = folded(Network(lambda m, x: m.norm(m.layer(x)), layer=layer, norm=norm), image(*size))
    assert not {"mul", "add"} & set(count_ops(graph))


@pytest.mark.parametrize("kind", LAYERS)
def test_batch_norm_before_a_layer_folds_without_padding_and_is_kept_right_with_it(kind):
    layer, size = LAYERS[kind]
    norm = NORMS[len(size)](6)
    graph, _ = folded(Network(lambda m, x: m.layer(m.norm(x)), norm=norm, layer=layer), image(*size))
    exact = kind in {"grouped conv", "conv with valid outputs", "linear"}
    assert ({"mul", "add"} & set(count_ops(graph)) == set()) == exact


def test_batch_norm_before_a_padded_conv_folds_where_its_shift_is_zero():
    network = Network(
        lambda m, x: m.conv(m.norm(x)), norm=nn.BatchNorm2d(4, affine=False), conv=nn.Conv2d(4, 5, 3, 1, 1)
    )
    network.norm.running_mean.zero_()
    graph, _ = folded(network, image(1, 4, 6, 6))
    assert count_ops(graph) == {"conv2d": 1}


def test_a_conv_with_two_readers_keeps_its_weights():
    network = Network(
        lambda m, x: (m.norm(m.conv(x)), m.conv(x).relu()), conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)
    )
    folded(network, image(1, 3, 8, 8))

    def shared(m, x):
        y = m.conv(x)
        return m.norm(y) * y.sigmoid()

    graph, _ = folded(Network(shared, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)), image(1, 3, 8, 8))
    assert count_ops(graph)["add"] == 1


def test_weights_shared_by_two_calls_fold_each_with_its_own_batch_norm():
    def twice(m, x):
        return m.second(m.conv(m.first(m.conv(x)).relu()))

    modules = {"conv": nn.Conv2d(5, 5, 3, padding=1), "first": nn.BatchNorm2d(5), "second": nn.BatchNorm2d(5)}
    graph, _ = folded(Network(twice, **modules), image(1, 5, 7, 7))
    assert count_ops(graph) == {"conv2d": 2, "relu": 1}


def test_one_batch_norm_used_twice_folds_twice():
    network = Network(
        lambda m, x: m.norm(m.b(m.norm(m.a(x)).relu())),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 4, 1),
        norm=nn.BatchNorm2d(4),
    )
    graph, _ = folded(network, image(1, 3, 5, 5))
    assert count_ops(graph) == {"conv2d": 2, "relu": 1}


def test_batch_norms_in_a_row_all_fold():
    network = Network(
        lambda m, x: m.c(m.b(m.a(m.conv(x)))), conv=nn.Conv2d(3, 4, 1), **{n: nn.BatchNorm2d(4) for n in "abc"}
    )
    assert count_ops(folded(network, image(1, 3, 5, 5))[0]) == {"conv2d": 1}


def test_batch_norm_over_a_concat_goes_into_each_part():
    network = Network(
        lambda m, x: m.norm(torch.cat([m.a(x), m.b(x)], 1)),
        a=nn.Conv2d(3, 4, 3, padding=1),
        b=nn.Conv2d(3, 2, 1, bias=False),
        norm=nn.BatchNorm2d(6),
    )
    assert count_ops(folded(network, image(1, 3, 5, 5))[0]) == {"conv2d": 2, "cat": 1}


def test_batch_norm_over_a_concat_of_one_part_twice_is_exact():
    def doubled(m, x):
        y = m.conv(x)
        return m.norm(torch.cat([y, y], 1))

    folded(Network(doubled, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(8)), image(1, 3, 5, 5))


def test_batch_norm_over_a_concat_with_an_activation_is_exact():
    network = Network(
        lambda m, x: m.norm(torch.cat([m.a(x).relu(), m.b(x)], 1)),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(3, 2, 1),
        norm=nn.BatchNorm2d(6),
    )
    folded(network, image(1, 3, 5, 5))


def test_batch_norm_of_sequences_scales_the_sequence_and_not_the_features():
    network = Network(lambda m, x: m.norm(m.linear(x)), linear=nn.Linear(6, 6), norm=nn.BatchNorm1d(6))
    graph, _ = folded(network, image(2, 6, 6))
    assert count_ops(graph)["add"] == 1


def test_batch_norm_without_parameters_folds():
    network = Network(lambda m, x: m.norm(m.conv(x)), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4, affine=False))
    assert count_ops(folded(network, image(1, 3, 5, 5))[0]) == {"conv2d": 1}


def test_batch_norm_between_activations_becomes_two_operations():
    network = Network(lambda m, x: m.norm(x.relu()).relu(), norm=nn.BatchNorm2d(3))
    assert count_ops(folded(network, image(2, 3, 5, 5))[0]) == {"relu": 2, "mul": 1, "add": 1}


def test_batch_norm_that_uses_the_batch_stays():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).double().eval()
    graph, certificate = fold(network, image(2, 3, 5, 5).double())
    assert certificate.max_relative_error == 0
    assert torch.equal(graph(image(2, 3, 5, 5).double()), network(image(2, 3, 5, 5).double()))
    assert "batch_norm" in count_ops(graph)


def test_batch_norm_folds_in_a_graph_that_torch_had_to_functionalise():
    def through_a_view(m, x):
        y = m.norm(m.conv(x))
        y[:, 1] = 0
        return m.last(y.relu())

    modules = {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "last": nn.BatchNorm2d(4)}
    graph, _ = folded(Network(through_a_view, **modules), image(1, 3, 6, 6))
    assert count_ops(graph)["mul"] == 1

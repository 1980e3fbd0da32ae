"""Alignment adds channels that nobody can tell from nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes.align_channels import AlignChannels, positions
from ghostdeploy.deploy.fold.passes.graph import calls, op_name, read_linear
from ghostdeploy.deploy.fold.passes.precision import run
from ghostdeploy.deploy.fold.passes.proof import apply
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.deploy.quantize.condition import align
from ghostdeploy.errors import GateFailed, UsageError
from ghostdeploy.models import create_model
from tests.equalizing import SAMPLES, equalize, load
from tests.folding import count_ops, image, randomize
from tests.further import further

OTHERS = ("ghostnetv2_100", "repghostnet_050", "g_ghost_regnetx_032")


def layers(graph):
    return [layer for node in graph.graph.nodes if (layer := read_linear(graph, node)) is not None]


def unaligned(graph, multiple):
    """Positions of the layers with input or output channels that are no multiple."""
    sizes = [(layer.weight.shape[1] * layer.groups, layer.outputs) for layer in layers(graph)]
    return [index for index, pair in enumerate(sizes) if any(count % multiple for count in pair)]


def aligned(module, *shape, multiple=8):
    """Folds and aligns in double precision; asserts that the outputs stay."""
    graph, _ = fold(module.double(), image(*shape).double())
    inputs = image(*shape, seed=2).double()
    result, record = align(graph, inputs, multiple)
    with torch.no_grad():
        expected, found = graph(inputs), result(inputs)
    assert expected.shape == found.shape
    assert (expected - found).abs().max() <= FOLD_RELATIVE_ERROR * expected.abs().max()
    assert record.name == "AlignChannels"
    assert record.max_relative_error <= FOLD_RELATIVE_ERROR
    assert count_ops(graph) == count_ops(result)
    return result, record.sites


def random(*parts):
    torch.manual_seed(0)
    return nn.Sequential(*parts)


class Call(nn.Module):
    """A function between layers."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.fixture(scope="module", params=further(SAMPLES, usual=SAMPLES[:1]))
def trained(request):
    return load(request.param).graph


@pytest.mark.parametrize("multiple", [8, 16, 32])
def test_every_layer_of_the_samples_is_aligned_between_image_and_logits(trained, multiple):
    result, record = align(trained, image(2, 3, 64, 64), multiple)
    assert record.max_relative_error <= FOLD_RELATIVE_ERROR
    assert unaligned(result, multiple) == [0, len(layers(result)) - 1]
    batch = image(3, 3, 64, 64, seed=5)
    with torch.no_grad():
        before, after = trained(batch), result(batch)
    assert (before - after).abs().max() <= 1e-5 * before.abs().max()


def test_alignment_and_equalization_go_together_in_either_order(trained):
    batch = image(2, 3, 64, 64)
    one, _ = align(equalize(trained, batch, [batch])[0], batch, 16)
    other, record = equalize(align(trained, batch, 16)[0], batch, [batch])
    assert record.max_relative_error <= FOLD_RELATIVE_ERROR
    for result in (one, other):
        assert unaligned(result, 16) == [0, len(layers(result)) - 1]


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_aligned_between_image_and_logits(name):
    result, _ = aligned(randomize(create_model(name)), 1, 3, 64, 64, multiple=16)
    assert unaligned(result, 16) == [0, len(layers(result)) - 1]


def test_added_weights_are_zero_and_the_others_keep_their_order():
    network = random(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))
    first, last = layers(aligned(network, 1, 3, 8, 8)[0])
    assert first.weight.shape == (8, 3, 3, 3)
    assert last.weight.shape == (2, 8, 1, 1)
    assert torch.equal(first.weight[:6], network[0].weight)
    assert torch.equal(first.bias[:6], network[0].bias)
    assert torch.equal(last.weight[:, :6], network[2].weight)
    assert not any(part.any() for part in (first.weight[6:], first.bias[6:], last.weight[:, 6:]))


MIDDLES = {
    "depthwise": ((nn.Conv2d(6, 6, 3, groups=6), nn.ReLU()), 6),
    "grouped": ((nn.Conv2d(6, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2, bias=False)), 6),
    "transposed": ((nn.ConvTranspose2d(6, 10, 3), nn.ReLU()), 10),
    "gate": ((Call(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))), nn.Hardswish()), 6),
    "halves": ((Call(lambda x: torch.cat([functional.relu(x), x], dim=1)),), 12),
    "halves in order": ((Call(lambda x: torch.cat([x[:, 2:], x[:, :2]], dim=1)),), 6),
    "sum": ((Call(lambda x: x + 0.5 * functional.silu(x) - 1),), 6),
    "pooled": ((nn.MaxPool2d(2), nn.AvgPool2d(2, padding=1), nn.Upsample(scale_factor=2)), 6),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_what_passes_added_channels_on(name):
    middle, outputs = MIDDLES[name]
    result, _ = aligned(random(nn.Conv2d(3, 6, 3), *middle, nn.Conv2d(outputs, 4, 1)), 2, 3, 16, 16)
    assert unaligned(result, 8) == [0, len(layers(result)) - 1]


HOLDERS = {
    "shuffle": (nn.ChannelShuffle(2),),
    "softmax": (nn.Softmax(dim=1),),
    "scale per channel": (nn.ReLU(), nn.PReLU(6)),
    "every second": (Call(lambda x: x[:, ::2].repeat(1, 2, 1, 1)),),
    "multiplier": (nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 6, 3, groups=6)),
    "flattened map": (nn.Flatten(), nn.Linear(6 * 36, 6 * 16), nn.Unflatten(1, (6, 4, 4))),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_holds_its_channels_is_left_alone(name):
    result, sites = aligned(random(nn.Conv2d(3, 6, 3), *HOLDERS[name], nn.Conv2d(6, 4, 1)), 2, 3, 8, 8)
    assert sites == 0
    assert layers(result)[0].outputs == 6


def test_a_channel_that_serves_all_stays_one():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.where, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            y = self.first(x)
            return self.last(y * torch.sigmoid(self.where(y)))

    torch.manual_seed(0)
    result, _ = aligned(Attention(), 1, 3, 8, 8)
    assert [layer.outputs for layer in layers(result)] == [8, 1, 4]


def test_a_shortcut_is_padded_where_the_halves_beside_it_are():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.primary, self.cheap = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 3, padding=1, groups=5)
            self.shortcut, self.last = nn.Conv2d(3, 10, 1), nn.Conv2d(10, 4, 1)

        def forward(self, x):
            y = self.primary(x)
            return self.last(torch.cat([y, self.cheap(y)], dim=1) + self.shortcut(x))

    torch.manual_seed(0)
    network = Residual()
    result, _ = aligned(network, 1, 3, 8, 8)
    shortcut = layers(result)[2]
    assert shortcut.outputs == 16
    assert torch.equal(shortcut.weight[:5], network.shortcut.weight[:5])
    assert torch.equal(shortcut.weight[8:13], network.shortcut.weight[5:])
    assert not shortcut.weight[5:8].any()


def test_slices_move_with_their_channels():
    network = random(
        nn.Conv2d(3, 10, 1), Call(lambda x: x[:, 3:7] + x[:, 6:]), nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )
    result, _ = aligned(network, 1, 3, 8, 8)
    assert "slice" in {op_name(node) for node in calls(result)}
    assert unaligned(result, 8) == [0, 2]


def test_aligned_channels_need_nothing():
    assert aligned(random(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)), 1, 3, 8, 8)[1] == 0


def test_new_places_leave_room_for_what_is_added():
    assert positions(torch.tensor([0, 2, 0, 1])).tolist() == [0, 1, 4, 5]


def test_another_multiple_is_refused():
    with pytest.raises(UsageError, match="aligned to 12, expected 8, 16 or 32"):
        AlignChannels(12)


def test_an_added_channel_that_is_read_fails_the_proof():
    class Leaky(AlignChannels):
        def run(self, module):
            result = super().run(module)
            layers(module)[1].weight.data += 1e-3
            return result

    inputs = (image(1, 3, 8, 8).double(),)
    graph, _ = fold(random(nn.Conv2d(3, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 2, 1)).double(), inputs)
    with pytest.raises(GateFailed, match="AlignChannels changed the output"):
        apply(Leaky(8), graph, inputs, run(graph, inputs))

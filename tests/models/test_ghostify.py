"""Plug-and-play: Ghost modules take the place of convolutions and keep their interface."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostdeploy.errors import UsageError
from ghostdeploy.models import ghostify
from ghostdeploy.models.count import count_macs, count_params
from ghostdeploy.models.ghost_plug_and_play import GhostConv2d


class Small(nn.Module):
    """Every kind of convolution: first, plain, odd, strided, dilated, grouped, depthwise, transposed, shared."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.odd = nn.Conv2d(16, 15, 3, padding="same", padding_mode="reflect")
        self.norm = nn.BatchNorm2d(15, eps=1e-3, momentum=0.2)
        self.strided = nn.Conv2d(15, 32, 5, (2, 1), 2, bias=False)
        self.dilated = nn.Conv2d(32, 32, 3, 1, 2, dilation=2)
        self.grouped = nn.Conv2d(32, 32, 3, 1, 1, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.up = nn.ConvTranspose2d(32, 8, 2, 2)
        self.tiny = nn.Conv2d(8, 2, 1)
        self.fc = nn.Linear(2, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.odd(self.stem(x))))
        x = self.dilated(torch.relu(self.strided(x)))
        x = self.tiny(self.up(self.depthwise(self.grouped(x))))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def images():
    return torch.randn(2, 3, 21, 30, generator=torch.Generator().manual_seed(0))


def test_shapes_stay_and_the_original_is_untouched(images):
    model = Small().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ghost = ghostify(model)
    with torch.inference_mode():
        assert ghost(images).shape == model(images).shape
    assert not any(isinstance(part, GhostConv2d) for part in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not ghost.training
    assert count_params(ghost) < count_params(model)


def test_only_convolutions_that_gain_are_replaced():
    ghost = ghostify(Small())
    assert [name for name, part in ghost.named_children() if isinstance(part, GhostConv2d)] == [
        "odd",
        "strided",
        "dilated",
    ]


@pytest.mark.parametrize("ratio", [2, 3, 4])
@pytest.mark.parametrize("name", ["odd", "strided", "dilated"])
def test_a_replacement_keeps_stride_padding_dilation_bias_and_channels(name, ratio, images):
    model = Small()
    conv, ghost = getattr(model, name), getattr(ghostify(model, ratio), name)
    primary, cheap = ghost.primary_conv[0], ghost.cheap_operation[0]
    settings = ("kernel_size", "stride", "padding", "dilation", "padding_mode", "in_channels")
    assert [getattr(primary, s) for s in settings] == [getattr(conv, s) for s in settings]
    assert [(part.bias is None) for part in (primary, cheap)] == [conv.bias is None] * 2
    assert (cheap.groups, cheap.in_channels) == (primary.out_channels, primary.out_channels)
    x = torch.randn(2, conv.in_channels, 11, 13)
    assert ghost(x).shape == conv(x).shape


def test_the_slice_drops_the_last_ghosts_of_an_odd_channel_count():
    conv = nn.Conv2d(4, 5, 3, padding=1)
    ghost = GhostConv2d(conv, None).eval()
    x = torch.randn(1, 4, 6, 6)
    primary = ghost.primary_conv(x)
    expected = torch.cat([primary, ghost.cheap_operation(primary)[:, :2]], dim=1)
    assert primary.shape[1] == 3
    assert torch.equal(ghost(x), expected)


def test_a_batchnorm_read_from_the_data_flow_moves_into_the_module():
    ghost = ghostify(Small())
    inner = ghost.odd.primary_conv[1]
    assert isinstance(ghost.norm, nn.Identity)
    assert (inner.num_features, inner.eps, inner.momentum) == (8, 1e-3, 0.2)
    assert ghost.odd.cheap_operation[1].num_features == 8


def test_a_batchnorm_stays_where_the_convolution_has_another_reader():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    ghost = ghostify(Forked(), keep_first=False)
    assert isinstance(ghost.norm, nn.BatchNorm2d)
    assert len(ghost.conv.primary_conv) == 1


def test_a_network_that_cannot_be_traced_keeps_its_batchnorms():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)

        def forward(self, x):
            return self.norm(self.conv(x)) if x.sum() > 0 else self.conv(x)

    ghost = ghostify(Branching(), keep_first=False)
    assert isinstance(ghost.norm, nn.BatchNorm2d)
    assert isinstance(ghost.conv, GhostConv2d)
    assert ghost(torch.ones(2, 8, 5, 5)).shape == (2, 16, 5, 5)


def test_a_shared_convolution_stays_shared():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(8, 8, 3, padding=1)
            self.second = self.first
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x):
            return self.norm(self.second(self.first(x)))

    ghost = ghostify(Shared(), keep_first=False)
    assert ghost.first is ghost.second
    assert isinstance(ghost.norm, nn.BatchNorm2d)
    assert ghost(torch.ones(1, 8, 5, 5)).shape == (1, 8, 5, 5)


def test_named_convolutions_are_skipped_and_a_lone_one_is_replaced():
    assert type(ghostify(Small(), skip=["strided"]).strided) is nn.Conv2d
    assert type(ghostify(nn.Conv2d(8, 8, 3), keep_first=False)) is GhostConv2d


def test_a_higher_ratio_costs_less():
    model = Small()
    macs = [count_macs(ghostify(model, ratio), (1, 3, 32, 32)) for ratio in (2, 3, 4)]
    assert count_macs(model, (1, 3, 32, 32)) > macs[0] > macs[1] > macs[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 1}, "ratio is 1, expected a whole number from 2"),
        ({"cheap_kernel": 2}, "cheap_kernel is 2, expected an odd number"),
        ({"skip": ["nowhere"]}, "ghostify got skip="),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        ghostify(Small(), **options)


def test_the_ghosted_network_learns():
    torch.manual_seed(0)
    model = ghostify(Small()).train()
    images, labels = torch.randn(32, 3, 16, 16), torch.arange(32) % 4
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]

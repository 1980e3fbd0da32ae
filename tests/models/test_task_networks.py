"""The small networks for landmarks, embeddings and masks: shapes, Ghost blocks inside, every parameter in use."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostdeploy.models.blocks import GhostModule
from ghostdeploy.models.ghost_embed import ghost_embed
from ghostdeploy.models.ghost_features import GhostFeatures
from ghostdeploy.models.ghost_pfld import GhostPFLD, ghost_pfld
from ghostdeploy.models.ghost_segment import ghost_segment
from ghostdeploy.models.nanodet import ghost_nanodet

CASES = [
    (ghost_nanodet, (128, 160), (426, 42)),
    (ghost_pfld, (64, 64), (16,)),
    (ghost_embed, (64, 64), (128,)),
    (ghost_segment, (128, 160), (11, 32, 40)),
]


@pytest.mark.parametrize(("factory", "size", "shape"), CASES)
def test_an_image_gives_one_output_of_the_promised_shape(factory, size, shape):
    with torch.inference_mode():
        assert factory().eval()(torch.zeros(2, 3, *size)).shape == (2, *shape)


@pytest.mark.parametrize(("factory", "size", "shape"), CASES)
def test_every_parameter_moves_the_output(factory, size, shape):
    torch.manual_seed(0)
    model = factory().eval()

    model(torch.rand(2, 3, *size)).square().sum().backward()

    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize(("factory", "size", "shape"), CASES)
def test_half_precision_weights_are_small_enough_to_ship(factory, size, shape):
    model = factory()

    assert 2 * sum(value.numel() for value in model.state_dict().values()) <= 1_500_000
    assert sum(isinstance(part, GhostModule) for part in model.modules()) >= 20


def test_a_larger_landmark_network_has_a_larger_last_kernel():
    with torch.inference_mode():
        assert GhostPFLD(98, size=112, width=1.0).eval()(torch.zeros(1, 3, 112, 112)).shape == (1, 196)


def test_maps_of_a_backbone_have_the_strides_and_channels_it_names():
    backbone = GhostFeatures(1.0, (2, 4, 6, 9)).eval()

    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, 64, 96))

    assert [tuple(one.shape[1:]) for one in maps] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (960, 2, 3)]
    assert backbone.outputs == [24, 40, 112, 960]
    assert not any(isinstance(part, nn.Linear) for part in backbone.modules())

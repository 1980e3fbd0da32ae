"""Family, width and class count are read from keys and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostdeploy.errors import CheckpointError
from ghostdeploy.models import build, find
from ghostdeploy.models.identify import Identity, identify
from ghostdeploy.models.zoo import ZOO


def state_of(name, num_classes=1000):
    with torch.device("meta"):
        return build(find(name), num_classes).state_dict()


@pytest.mark.parametrize("name", ZOO)
def test_every_network_is_recognised_by_its_own_state(name):
    assert identify(state_of(name, 37)) == Identity(name, find(name).family, 37)


def test_no_two_networks_have_equal_keys_and_shapes():
    states = {name: tuple((key, *value.shape) for key, value in state_of(name).items()) for name in ZOO}
    assert len(set(states.values())) == len(ZOO)


def test_a_few_missing_or_odd_tensors_do_not_hide_the_network():
    state = state_of("repghostnet_111", 10)
    for key in ("conv_stem.weight", "blocks.3.0.se.conv_reduce.bias", "bn1.running_mean"):
        del state[key]
    state["extra"] = torch.empty(3, device="meta")
    assert identify(state).name == "repghostnet_111"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (nn.Linear(2, 2).state_dict(), "no network in the zoo"),
        ({"conv_stem.weight": torch.zeros(16, 3, 3, 3), "classifier.weight": torch.zeros(10, 1280)}, "no network"),
        ({"conv_stem.weight": torch.zeros(16, 3, 3, 3)}, "lacks the classifier"),
        ({}, "no network in the zoo"),
    ],
)
def test_a_stranger_is_refused_with_a_way_on(state, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        identify(state)
    assert "package.module:factory" in (caught.value.hint or "")


def test_a_width_outside_the_zoo_is_refused_by_name():
    from ghostdeploy.models.ghostnet import ghostnet

    with torch.device("meta"):
        state = ghostnet(0.9).state_dict()
    with pytest.raises(CheckpointError, match="width that is not in the zoo"):
        identify(state)


@pytest.mark.parametrize("name", ["ghostnetv3_100", "repghostnet_100"])
def test_a_folded_network_is_refused_as_such(name):
    state = {key: value for key, value in state_of(name).items() if "_rpr_" not in key and "fusion" not in key}
    state = {key: value for key, value in state.items() if "cheap_operation" not in key}
    state["blocks.0.0.ghost1.cheap_operation.bias"] = torch.empty(8, device="meta")
    with pytest.raises(CheckpointError, match=r"folded \(deploy\) form"):
        identify(state)

"""Calls without effect go; calls that only look so stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostdeploy.models.blocks import GhostModule
from tests.folding import count_ops, folded, image, randomize, sites


class Apply(nn.Module):
    """A function as a module; a ReLU in front, because outputs may not be inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.relu()).sigmoid()


NO_OPS = {
    "dropout": lambda x: functional.dropout(x, 0.5, training=False),
    "dropout2d": nn.Dropout2d(0.3),
    "identity": nn.Identity(),
    "detach": lambda x: x.detach(),
    "contiguous": lambda x: x.contiguous(memory_format=torch.channels_last),
    "clone": lambda x: x.clone(),
    "same type": lambda x: x.to(x.dtype),
    "slice that keeps all": lambda x: x[:, :6],
    "slice past the end": lambda x: x[:, :100, 0:],
    "slice from before the start": lambda x: x[:, -6:],
    "all of everything": lambda x: x[:, :, :, :],
    "view": lambda x: x.view(-1, 6, 5, 4),
    "resize to the same size": lambda x: functional.interpolate(x, size=(5, 4)),
    "addition of zero": lambda x: 0 + x + 0,
    "multiplication by one": lambda x: x * 1 / 1,
}


@pytest.mark.parametrize("kind", NO_OPS)
def test_a_call_without_effect_goes(kind):
    graph, certificate = folded(Apply(NO_OPS[kind]), image(2, 6, 5, 4))
    assert count_ops(graph) == {"relu": 1, "sigmoid": 1}
    assert sites(certificate, "RemoveNoOps") >= (kind not in {"identity"})


EFFECTS = {
    "slice that drops a channel": lambda x: x[:, :5],
    "slice from the second": lambda x: x[:, 1:],
    "slice with a step": lambda x: x[:, ::2],
    "slice of the last": lambda x: x[:, -5:],
    "empty slice of a slice": lambda x: torch.cat([x, x[:, 2:4][:, 3:9]], 1),
    "shape": lambda x: x.reshape(2, 3, 10, 4),
    "resize": lambda x: functional.interpolate(x, size=(10, 8)),
    "broadcast": lambda x: x[:, :1] * 1 + torch.zeros(1, 6, 1, 1, dtype=x.dtype),
}


@pytest.mark.parametrize("kind", EFFECTS)
def test_a_call_with_an_effect_stays(kind):
    graph, _ = folded(Apply(EFFECTS[kind]), image(2, 6, 5, 4))
    assert len(count_ops(graph)) > 2


@pytest.mark.parametrize("kind", [*NO_OPS, *(kind for kind in EFFECTS if kind != "shape")])
def test_the_same_holds_when_the_batch_is_free(kind):
    graph, _ = folded(Apply((NO_OPS | EFFECTS)[kind]), image(2, 6, 5, 4), dynamic_batch=True)
    other = image(3, 6, 5, 4, seed=5).double()
    assert torch.allclose(graph(other), Apply((NO_OPS | EFFECTS)[kind]).eval()(other), rtol=1e-12)
    assert (len(count_ops(graph)) == 2) == (kind in NO_OPS)


def test_a_slice_of_the_batch_stays_when_the_batch_is_free():
    graph, _ = folded(Apply(lambda x: x[:1]), image(2, 6, 5, 4), dynamic_batch=True)
    assert graph(image(5, 6, 5, 4).double()).shape[0] == 1


@pytest.mark.parametrize(
    ("outer", "length"), [(slice(1, 3), 2), (slice(1, 99), 3), (slice(-2, None), 2), (slice(0, 4, 3), 2)]
)
def test_slices_of_slices_become_one(outer, length):
    graph, _ = folded(Apply(lambda x: x[:, 2:6][:, outer]), image(2, 8, 5, 4))
    assert count_ops(graph)["slice"] == 1
    assert graph(image(2, 8, 5, 4).double()).shape[1] == length


@pytest.mark.parametrize(("channels", "ratio", "kept"), [(8, 2, 0), (7, 2, 1), (9, 3, 0), (10, 3, 1)])
def test_the_slice_of_a_ghost_module_goes_only_where_it_drops_nothing(channels, ratio, kept):
    class Third(GhostModule):
        def forward(self, x):
            primary = self.primary_conv(x)
            return torch.cat([primary, self.cheap_operation(primary)], dim=1)[:, : self.outputs, :, :]

    module = randomize(Third(6, channels, ratio=ratio))
    graph, _ = folded(nn.Sequential(module, nn.Conv2d(channels, 4, 1)), image(1, 6, 5, 5))
    assert count_ops(graph).get("slice", 0) == kept

"""Random small networks fold exactly, whatever feeds what."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.folding import count_ops, folded, image, randomize

CHANNELS = 4


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Scale(nn.Module):
    """A constant per channel."""

    def __init__(self, added):
        super().__init__()
        self.values = nn.Parameter(torch.linspace(-1, 2, CHANNELS).reshape(-1, 1, 1))
        self.added = added

    def forward(self, x):
        return self.values + x if self.added else x * self.values


class Parallel(nn.Module):
    """Several modules on one tensor, then their sum, product, or a concatenation that is mixed or pooled."""

    def __init__(self, how, parts):
        super().__init__()
        self.how, self.parts = how, nn.ModuleList(parts)
        self.mix = nn.Conv2d(CHANNELS * len(parts), CHANNELS, 1)

    def forward(self, x):
        results = [part(x) for part in self.parts]
        if self.how in {"mix", "pool"}:
            y = torch.cat(results, 1)
            return self.mix(y) if self.how == "mix" else x * self.mix(y.mean((2, 3), keepdim=True)).sigmoid()
        total = results[0]
        for other in results[1:]:
            total = total + other if self.how == "sum" else total * other
        return total


SIMPLE = {
    "bn": lambda: nn.BatchNorm2d(CHANNELS),
    "relu": nn.ReLU,
    "relu in place": lambda: nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)),
    "gate": lambda: Apply(lambda x: nn.functional.relu6(x + 3) / 6),
    "dropout": lambda: nn.Dropout(0.2),
    "identity": nn.Identity,
    "slice": lambda: Apply(lambda x: x[:, :CHANNELS]),
    "rotate": lambda: Apply(lambda x: torch.cat([x[:, 1:], x[:, :1]], 1)),
    "scale": lambda: Scale(added=False),
    "shift": lambda: Scale(added=True),
    "resize": lambda: Apply(lambda x: nn.functional.interpolate(nn.functional.avg_pool2d(x, 2), size=x.shape[2:])),
}

convolutions = st.tuples(
    st.just("conv"),
    st.sampled_from([1, 3, 5, (1, 3), (3, 1)]),
    st.sampled_from([1, 2, CHANNELS]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
leaves = convolutions | convolutions | st.sampled_from(sorted(SIMPLE))
networks = st.recursive(
    leaves,
    lambda inner: (
        st.tuples(st.just("seq"), st.lists(inner, min_size=2, max_size=3))
        | st.tuples(st.sampled_from(["sum", "sum", "product", "mix", "pool"]), st.lists(inner, min_size=2, max_size=4))
    ),
    max_leaves=10,
)


def build(spec):
    if isinstance(spec, str):
        return SIMPLE[spec]()
    if spec[0] == "conv":
        _, kernel, groups, dilation, bias = spec
        return nn.Conv2d(CHANNELS, CHANNELS, kernel, padding="same", groups=groups, dilation=dilation, bias=bias)
    parts = [build(part) for part in spec[1]]
    return nn.Sequential(*parts) if spec[0] == "seq" else Parallel(spec[0], parts)


@given(networks, st.booleans())
def test_a_random_network_folds_exactly(spec, dynamic):
    torch.manual_seed(0)
    network = randomize(nn.Sequential(nn.Conv2d(3, CHANNELS, 3), build(spec), nn.BatchNorm2d(CHANNELS)))
    graph, _ = folded(network, image(2, 3, 9, 8), dynamic_batch=dynamic)
    assert not {"dropout", "batch_norm"} & set(count_ops(graph))

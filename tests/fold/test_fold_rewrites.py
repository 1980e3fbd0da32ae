"""Hard sigmoid, pooling of a concatenation, nearest resize: one form each, and only where it is the same function."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.folding import count_ops, folded, image, sites

relu6 = functional.relu6


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


GATES = {
    "relu6": lambda x: relu6(x + 3) / 6,
    "relu6 in place": lambda x: relu6(x + 3.0, inplace=True).div_(6.0),
    "hardtanh": lambda x: functional.hardtanh(3 + x, 0.0, 6.0) * (1 / 6),
    "clamp": lambda x: (x + 3).clamp(0, 6) / 6,
    "clamp by parts": lambda x: (x + 3).clamp(min=0).clamp(max=6) / 6,
    "relu and clamp": lambda x: torch.clamp_max((x + 3).relu(), 6) / 6,
    "constant tensors": lambda x: relu6(x + torch.tensor(3.0)) / torch.tensor(6.0),
    "slope first": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "slope by product": lambda x: functional.hardtanh(0.5 + (1 / 6) * x, 0, 1),
    "module": nn.Hardsigmoid(),
}


@pytest.mark.parametrize("kind", GATES)
def test_spellings_of_the_hard_sigmoid_become_one_call(kind):
    graph, _ = folded(Apply(lambda x: GATES[kind](x * 2)), image(2, 3, 5, 4) * 4)
    assert count_ops(graph) == {"mul": 1, "hardsigmoid": 1}


SWISHES = {
    "gate times x": lambda x: x * relu6(x + 3) / 6,
    "x times gate": lambda x: x * (relu6(x + 3) / 6),
    "module gate": lambda x: functional.hardsigmoid(x) * x,
    "module": nn.Hardswish(),
}


@pytest.mark.parametrize("kind", SWISHES)
def test_spellings_of_the_hard_swish_become_one_call(kind):
    graph, _ = folded(Apply(lambda x: SWISHES[kind](x.sigmoid())), image(2, 3, 5, 4))
    assert count_ops(graph) == {"sigmoid": 1, "hardswish": 1}


OTHER_GATES = {
    "clip to one": lambda x: x.clamp(0, 1),
    "rounded factor": lambda x: relu6(x + 3) * 0.16667,
    "other offset": lambda x: relu6(x + 2) / 6,
    "other bound": lambda x: (x + 3).clamp(0, 5) / 6,
    "no upper bound": lambda x: (x + 3).clamp(min=0) / 6,
    "reciprocal": lambda x: 6 / (relu6(x + 3) + 1),
    "rounding": lambda x: torch.div(relu6(x + 3), 6, rounding_mode="floor"),
    "doubled offset": lambda x: torch.add(x, 3, alpha=2).clamp(0, 6) / 6,
}


@pytest.mark.parametrize("kind", OTHER_GATES)
def test_other_gates_stay(kind):
    graph, certificate = folded(Apply(OTHER_GATES[kind]), image(2, 3, 5, 4) * 4)
    assert not {"hardsigmoid", "hardswish"} & set(count_ops(graph))
    assert sites(certificate, "CanonicalizeHardSigmoid") == 0


def test_a_gate_behind_a_convolution_keeps_its_offset():
    graph, _ = folded(nn.Sequential(nn.Conv2d(3, 4, 1), Apply(GATES["relu6"])), image(1, 3, 5, 5))
    assert count_ops(graph) == {"conv2d": 1, "hardsigmoid": 1}


POOLS = {
    "adaptive": nn.AdaptiveAvgPool2d(1),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "mean without the axes": lambda x: x.mean([-1, -2]),
    "full window": nn.AvgPool2d((5, 4)),
}


@pytest.mark.parametrize("kind", POOLS)
def test_a_global_mean_moves_before_the_concat(kind):
    graph, certificate = folded(
        Apply(lambda x: POOLS[kind](torch.cat([x, x.relu(), x[:, :2]], 1)) * 2), image(2, 3, 5, 4)
    )
    assert sites(certificate, "PoolBeforeConcat") == 1
    (cat,) = (node for node in graph.graph.nodes if "aten.cat" in str(node.target))
    assert cat.meta["shape"][:2] == (2, 8)
    assert set(cat.meta["shape"][2:]) <= {1}


OTHER_POOLS = {
    "larger output": lambda x: functional.adaptive_avg_pool2d(torch.cat([x, x.relu()], 1), (1, 2)),
    "window": lambda x: functional.avg_pool2d(torch.cat([x, x.relu()], 1), 2),
    "concat of rows": lambda x: torch.cat([x, x.relu()], 2).mean((2, 3)),
    "mean of rows": lambda x: torch.cat([x, x.relu()], 1).mean(2),
    "mean of all": lambda x: torch.cat([x, x.relu()], 1).mean(),
    "concat read twice": lambda x: (lambda y: y * y.mean((2, 3), keepdim=True))(torch.cat([x, x.relu()], 1)),
}


@pytest.mark.parametrize("kind", OTHER_POOLS)
def test_other_pools_stay(kind):
    _, certificate = folded(Apply(OTHER_POOLS[kind]), image(2, 3, 5, 4))
    assert sites(certificate, "PoolBeforeConcat") == 0


def resizes(graph):
    return [node for node in graph.graph.nodes if "upsample_nearest" in str(node.target)]


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_nearest_resize_by_factor_gets_its_size(dynamic):
    network = Apply(lambda x: functional.interpolate(x, scale_factor=(2.0, 3.0)))
    graph, certificate = folded(network, image(2, 3, 5, 4), dynamic_batch=dynamic)
    assert sites(certificate, "FixResizeSize") == 1
    assert [node.args[1:] for node in resizes(graph)] == [([10, 12], None)]


def test_a_computed_size_is_a_number():
    network = Apply(lambda x, y: functional.interpolate(x, size=(y.shape[2] * 2, y.shape[3])))
    graph, _ = folded(network, image(2, 3, 3, 3), image(2, 1, 4, 7))
    assert resizes(graph)[0].args[1] == [8, 7]


@pytest.mark.parametrize(("size", "factor"), [(5, 1.5), (7, 1.3), (3, 2.4), (9, 0.6), (6, 1.5)])
def test_a_fractional_factor_reads_the_same_pixels_after_the_fold(size, factor):
    folded(Apply(lambda x: functional.interpolate(x, scale_factor=factor)), image(1, 2, size, size))


def test_a_factor_that_reads_other_pixels_than_its_size_is_not_replaced_by_it():
    graph, certificate = folded(Apply(lambda x: functional.interpolate(x, scale_factor=1.3)), image(1, 1, 8, 8))
    by_factor = functional.interpolate(torch.arange(8.0).reshape(1, 1, 8), scale_factor=1.3)
    by_size = functional.interpolate(torch.arange(8.0).reshape(1, 1, 8), size=10)
    assert not torch.equal(by_factor, by_size)
    assert sites(certificate, "FixResizeSize") == 0
    assert sites(certificate, "WriteResizes") == 1  # the places themselves
    assert not resizes(graph)


def test_a_dfc_gate_keeps_floor_semantics():
    graph, _ = folded(Apply(lambda x: functional.interpolate(x, size=(7, 7))), image(1, 1, 3, 3))
    rows = graph(torch.arange(3.0).double().reshape(1, 1, 3, 1).expand(1, 1, 3, 3))[0, 0, :, 0]
    assert rows.tolist() == [0, 0, 0, 1, 1, 2, 2]

"""Captured graphs hold no in-place calls and no state, and give what the module gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostdeploy.deploy.fold.capture import capture
from ghostdeploy.deploy.fold.fold import fold
from tests.folding import count_ops, image


def later_readers(x):
    y = x * 2
    z = y.sigmoid()
    y += 1
    return y.relu_() + z


def input_itself(x):
    x.mul_(2)
    return x + 1


def through_a_view(x):
    y = x * 2
    row = y[:, 0]
    row += 1
    return y


def before_a_view(x):
    y = x * 2
    row = y[:, 0]
    y += 1
    return row * y.sum((1,))


def assigned(x):
    y = x * 2
    y[:, 1] = 0
    y[:, :1].clamp_(0, 1)
    return y


def through_dropout(x):
    y = x * 2
    z = functional.dropout(y, 0.5, training=False)
    z += 1
    return z


@pytest.mark.parametrize(
    "function", [later_readers, input_itself, through_a_view, before_a_view, assigned, through_dropout]
)
def test_in_place_calls_become_functional_without_changing_the_result(function):
    class Apply(nn.Module):
        def forward(self, x):
            return function(x)

    graph = capture(Apply(), image(2, 3, 4, 4))
    assert torch.equal(graph(image(2, 3, 4, 4)), function(image(2, 3, 4, 4)))
    assert not any(node.target._schema.is_mutable for node in graph.graph.nodes if hasattr(node.target, "_schema"))


def test_state_that_a_module_counts_is_not_updated_by_the_graph():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.conv(x)

    module = Counting()
    graph, _ = fold(module, image(1, 3, 4, 4))
    assert count_ops(graph) == {"conv2d": 1}
    assert module.calls == 0

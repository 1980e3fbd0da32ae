"""Tracing a program again for ONNX is spared where it would change nothing, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ghostdeploy.exporters.onnx.exporter import spare_decomposition

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns about its own internals
TABLE = {torch.ops.aten.silu.default: lambda x: x * torch.sigmoid(x)}
"""Operations that are asked to be taken apart; here one."""


class Folded(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.layer, self.head, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), last

    def forward(self, x):
        x = F.adaptive_avg_pool2d(torch.relu(self.layer(x)), 1)
        return self.last(self.head(torch.flatten(x, 1)).reshape(-1, 2))


@pytest.mark.parametrize(
    ("last", "spared"),
    [
        (torch.relu, True),
        (lambda x: x.argmax(1).int(), False),
        (F.silu, False),
        (lambda x: x.clone().add_(1), False),
        (lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)), False),
    ],
    ids=["a folded network", "Tensor.to", "in the table", "in place", "a graph inside"],
)
def test_a_program_is_traced_again_where_that_changes_it(last, spared):
    program = torch.export.export(Folded(last).eval(), (torch.randn(2, 3, 8, 8),))

    spare_decomposition(program)

    assert (program.run_decompositions(TABLE) is program) == spared

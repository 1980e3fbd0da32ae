"""What the equalization tests share: trained networks, small badly scaled ones, an equalization that checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from ghostdeploy import samples
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.deploy.quantize import condition
from ghostdeploy.models.source import load_model
from tests.folding import image

if TYPE_CHECKING:
    import numpy as np

    from ghostdeploy.preprocess import Preprocess

SAMPLES = ("ghostnet_050", "g_ghost_regnetx_002")


@dataclass
class Trained:
    """A sample model: the module, its folded graph, and one batch of 64 calibration images."""

    module: nn.Module
    spec: Preprocess
    batch: np.ndarray
    graph: fx.GraphModule

    @property
    def images(self):
        return torch.as_tensor(self.batch)


@cache
def load(name):
    """Returns a sample model for everyone in this process: nobody changes it."""
    loaded = load_model(None, weights=samples.checkpoint(name))
    batch = stream(loaded.preprocess, 64)[0]
    graph, _ = fold(loaded.module, batch[:2], dynamic_batch=True)
    return Trained(loaded.module, loaded.preprocess, batch, graph)


def equalize(graph, example, batches, *, strength=0.5):
    """Returns the equalized graph and its record, with ranges over `batches`."""
    return condition.equalize(graph, example, condition.ranges_over(graph, batches), strength=strength)


def stream(spec, count, path=None):
    return list(open_images(path or samples.calibration_set()).sample(count).batches(spec, size=64))


def equalized(module, *shape, strength=0.5):
    """Folds and equalizes in double precision; asserts that the outputs stay."""
    graph, _ = fold(module.double(), image(*shape).double())
    inputs = image(*shape, seed=2).double()
    result, record = equalize(graph, inputs, [image(*shape, seed=3).double()], strength=strength)
    with torch.no_grad():
        expected, found = graph(inputs), result(inputs)
    assert (expected - found).abs().max() <= FOLD_RELATIVE_ERROR * expected.abs().max()
    assert record.name == "EqualizeChannels"
    assert record.max_relative_error <= FOLD_RELATIVE_ERROR
    assert not any({"scaled", "stands_for"} & set(node.meta) for node in result.graph.nodes)
    return graph, result, record.sites


def random(*layers):
    torch.manual_seed(0)
    network = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0 ** torch.randint(-5, 6, (len(parameter), *[1] * (parameter.ndim - 1))))
    return network


class Call(nn.Module):
    """A function between layers."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)

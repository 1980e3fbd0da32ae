"""Huge weights after a channel that never fires move to the layer before it, as a power of two.

A channel that is 0 after its ReLU for every image of the training set leaves a running variance near 0 in the BatchNorm
behind the layer that reads it, and folding divides by its root: that layer's weights of the channel are a thousand or a
million times those of its neighbours. No float16 holds them beyond 65504, where 0 · inf is NaN, and no INT8 step fits
the layer: LiteRT refuses a ratio of scales of 256, and a bias has steps of input times weight scale. With the factor
f = 2ᵏ of channel c (see `equalize_channels`)

    W'[o, c] = W[o, c]/f  in every reader,      W'[c, i] = f · W[c, i],  b'[c] = f · b[c]  in every writer

changes no bit, dead or not. f is the largest excess of the channel's column over the middle column of a layer that
reads it, rounded down, and no more than leaves Σ|W'[c, i]| + |b'[c]| below `LARGEST_ROW`.
Refused: excesses up to `EXCESS`, as sound networks have them; channels that something without weights looks at (a hard
swish, a gate, an output).
Source: the running variance of dead channels in trained GhostNets; Nagel et al. (ICCV 2019, arXiv 1906.04721),
section 4.1, for the rescaling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_flow import absorbing_layer
from ghostdeploy.deploy.fold.passes.coupled_channels import PINNED
from ghostdeploy.deploy.fold.passes.equalize_channels import coupled_by_scale, rescale
from ghostdeploy.deploy.fold.passes.graph import calls

if TYPE_CHECKING:
    from torch import Tensor, fx

    from ghostdeploy.deploy.fold.passes.coupled_channels import CoupledChannels
    from ghostdeploy.deploy.fold.passes.graph import Linear

EXCESS = 2.0**8
LARGEST_ROW = 2.0**11
"""Leaves float16 a factor of 32 for the layer's inputs."""


class BalanceChannels:
    """Columns far above their neighbours → shared with the rows before them."""

    name = "BalanceChannels"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        layers = [layer for node in calls(module) if (layer := absorbing_layer(module, node)) is not None]
        if not any(bool((excess(layer) > EXCESS).any()) for layer in layers):
            return PassResult(module, 0)
        coupled = coupled_by_scale(module)
        factors = balancing_factors(coupled, layers)
        return PassResult(module, rescale(module, coupled, factors) if bool((factors != 1).any()) else 0)


def balancing_factors(coupled: CoupledChannels, layers: list[Linear]) -> Tensor:
    """Returns the factor of each component, float64 (coupled.size,), 1 where nothing changes."""
    above = torch.ones(coupled.size, dtype=torch.float64)
    widest = torch.zeros_like(above)
    for layer in layers:
        above.scatter_reduce_(0, coupled.components(layer.source), excess(layer), "amax")
        widest.scatter_reduce_(0, coupled.components(layer.node), row_sums(layer), "amax")
    room = LARGEST_ROW / widest.clamp_min(1 / LARGEST_ROW)
    factors = torch.where(above > EXCESS, torch.minimum(above, room), 1.0).clamp_min(1.0)
    factors = 2.0 ** factors.log2().floor()
    factors[PINNED] = 1
    return factors


def excess(layer: Linear) -> Tensor:
    """Returns by how much each input channel's weights exceed those of the middle channel, float64 (inputs,)."""
    weight = layer.weight.double().abs()
    if layer.transposed:
        columns = weight.flatten(1).amax(1)
    else:
        grouped = weight.reshape(layer.groups, -1, weight.shape[1], max(1, weight[0, 0].numel()))
        columns = grouped.amax((1, 3)).flatten()
    used = columns[columns > 0]
    return columns / used.median() if len(used) else columns


def row_sums(layer: Linear) -> Tensor:
    """Returns Σ|W[c, i]| + |b[c]| of each output channel, float64 (outputs,)."""
    weight = layer.weight.double().abs()
    if layer.transposed:
        sums = weight.reshape(layer.groups, -1, weight.shape[1], max(1, weight[0, 0].numel())).sum((1, 3)).flatten()
    else:
        sums = weight.flatten(1).sum(1)
    return sums + layer.bias_or_zero().double().abs()

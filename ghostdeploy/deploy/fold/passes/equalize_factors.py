"""How large a factor each component of channels gets before quantization.

With r_c the largest magnitude of channel c and T the common target of the tensors that hold it,

    f_c = T/r_c · share_c^(1 − strength),        share_c = max over rows o of |W[o, c]|·r_c / max_i |W[o, i]|·r_i

strength 1 makes all ranges equal. That is best for the activations, which have one step per tensor, but moves the
differences into the columns of the next weights, which have one step per row. share_c tells how much channel c weighs
at most in any row that reads it; a channel that weighs little gets less of the range and a larger column. With
strength s and column width w_c = share_c/r_c this is f = w^(1−s)/r^s, SmoothQuant's rule, whose default 0.5 was the
best measured here too. Both r and share follow a rescaling of the network, so its result does not depend on how badly
the channels were scaled.

Ranges count where a tensor is quantized: not a sum or convolution whose only reader is a ReLU, for the two become one.
A depthwise row reads one channel and says nothing about shares. Channels that never fire keep f = 1, and T is the
largest range in the group, so that no channel shrinks below it. A factor is at most 2^16.
Source: Xiao et al., "SmoothQuant" (ICML 2023, arXiv 2211.10438), equation 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.fold.passes.channel_ties import PINNED, Components
from ghostdeploy.deploy.fold.passes.graph import op_name, sole_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, fx

    from ghostdeploy.deploy.fold.passes.channel_ties import ChannelTies
    from ghostdeploy.deploy.fold.passes.graph import Linear

SPAN = 2.0**16
"""Largest change: a channel 65536 times below its target is as good as dead, and float16 could not hold the factor."""


def equalizing_factors(
    ties: ChannelTies, layers: Sequence[Linear], ranges: Mapping[str, Tensor], strength: float
) -> Tensor:
    """Returns the factor of each component, float64 (ties.size,), 1 where nothing changes.

    Args:
        ties: Which channels share a factor.
        layers: Convolutions and linear layers that can absorb factors.
        ranges: Largest magnitudes by node name, each (channels,).
        strength: 0 to 1, see the module docstring.
    """
    found = {node: ranges[node.name].double() for node in ties.nodes if node.name in ranges and is_quantized(node)}
    largest = torch.zeros(ties.size, dtype=torch.float64)
    for node, of_channel in found.items():
        largest.scatter_reduce_(0, ties.components(node), of_channel, "amax")
    wanted = targets(ties, largest, found) * shares(ties, layers, largest) ** (1 - strength)
    factors = torch.where(largest > 0, wanted / largest, 1.0).clamp(1 / SPAN, SPAN)
    factors[PINNED] = 1
    return factors


def is_quantized(node: fx.Node) -> bool:
    """Tells whether a call's result is a tensor of its own when the network is quantized."""
    return not (sole_user(node) and op_name(next(iter(node.users))) == "relu")


def targets(ties: ChannelTies, largest: Tensor, found: Mapping[fx.Node, Tensor]) -> Tensor:
    """Returns the common range of all components that meet in a tensor, that of pinned channels where there are any.

    Args:
        ties: The components.
        largest: Range of each component, (ties.size,).
        found: Range of each channel of the quantized tensors.
    """
    groups, anchors = Components(ties.size), torch.zeros_like(largest)
    for node, of_channel in found.items():
        components = ties.components(node)
        free = sorted(set(components.tolist()) - {PINNED})
        for one in free[1:]:
            groups.join(free[0], one)
        if free and len(pinned := of_channel[components == PINNED]):
            anchors[free[0]] = max(float(anchors[free[0]]), float(pinned.max()))
    group = torch.tensor([groups.find(component) for component in range(ties.size)])
    ours, theirs = (torch.zeros_like(largest).scatter_reduce(0, group, of, "amax")[group] for of in (largest, anchors))
    return torch.where(theirs > 0, theirs, ours)


def shares(ties: ChannelTies, layers: Sequence[Linear], largest: Tensor) -> Tensor:
    """Returns the largest share of each component in any row that reads it, in (0, 1], 1 where no row tells.

    Args:
        ties: The components.
        layers: Who reads them.
        largest: Range of each component, (ties.size,).
    """
    found = torch.zeros_like(largest)
    for linear in layers:
        if linear.transposed or linear.weight.shape[1] == 1:
            continue
        components = ties.components(linear.source).reshape(linear.groups, -1)
        rows = linear.weight.double().abs().flatten(2).amax(2) if linear.rank else linear.weight.double().abs()
        weighed = rows.reshape(linear.groups, -1, rows.shape[1]) * largest[components][:, None]
        share = (weighed / weighed.amax(2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)).amax(1)
        found.scatter_reduce_(0, components.flatten(), share.flatten(), "amax")
    return torch.where(found > 0, found, 1.0)

"""Give the channels of a tensor ranges that one quantization step fits.

Every channel c carries a factor f_c > 0 and becomes f_c·y_c. A convolution takes the factors of its input off and puts
those of its output on,

    W'[o, i] = f_out[o] · W[o, i] / f_in[i],      b'[o] = f_out[o] · b[o],

and whatever lies between two convolutions must let the factor through: g(f·y) = f·g(y). ReLU, sums of tensors with
equal factors, concat, slices, pooling, resizes and gates (y·g, g unchanged) do; everything else, inputs, outputs and
sums with constants hold their channels at f = 1. Channels that must share a factor are found by union-find, so one rule
covers both halves of a Ghost module, depthwise chains, residual streams and G-Ghost stages. How large the
factors are stands below.

The rewriting is exact: the pass notes f in `meta["scaled"]`, and the runner compares every call with f·y.
Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019, arXiv
1906.04721), section 4.1.

With r_c the largest magnitude of channel c and T the common target of the tensors that hold it,

    f_c = T/r_c · share_c^(1 − strength),        share_c = max over rows o of |W[o, c]|·r_c / max_i |W[o, i]|·r_i

strength 1 makes all ranges equal. That is best for the activations, which have one step per tensor, but moves the
differences into the columns of the next weights, which have one step per row. share_c tells how much channel c weighs
at most in any row that reads it; a channel that weighs little gets less of the range and a larger column. With
strength s and column width w_c = share_c/r_c this is f = w^(1−s)/r^s, SmoothQuant's rule, whose default 0.5 was the
best measured here too. Both r and share follow a rescaling of the network, so its result does not depend on how badly
the channels were scaled.

Ranges count where a tensor is quantized: not a sum or convolution whose only reader is a ReLU, for the two become one.
A depthwise row reads one channel and has no shares. Channels that never fire keep f = 1, and T is the
largest range in the group, so that no channel shrinks below it. A factor is at most 2^16.
Source: Xiao et al., "SmoothQuant" (ICML 2023, arXiv 2211.10438), equation 4.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_flow import absorbing_layer, read_flow
from ghostdeploy.deploy.fold.passes.coupled_channels import PINNED, Components, CoupledChannels
from ghostdeploy.deploy.fold.passes.fold_batch_norm import scale_outputs
from ghostdeploy.deploy.fold.passes.graph import calls, op_name, rewrite_linear, shape, sole_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, fx

    from ghostdeploy.deploy.fold.passes.channel_flow import Flow
    from ghostdeploy.deploy.fold.passes.graph import Linear


class EqualizeChannels:
    """Factors move between convolutions until all channels of a tensor have fitting ranges.

    Args:
        ranges: Largest magnitude of each channel by node name, see `value_ranges.channel_ranges`.
        strength: 1 makes ranges equal, less gives a channel that its readers weigh little a smaller one; 0 to 1.
    """

    name = "EqualizeChannels"

    def __init__(self, ranges: Mapping[str, Tensor], *, strength: float = 0.5) -> None:
        self._ranges = ranges
        self._strength = strength

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        coupled = coupled_by_scale(module)
        layers = [layer for node in calls(module) if (layer := absorbing_layer(module, node)) is not None]
        factors = equalizing_factors(coupled, layers, self._ranges, self._strength)
        return PassResult(module, rescale(module, coupled, factors))


def coupled_by_scale(module: fx.GraphModule) -> CoupledChannels:
    """Returns which channels must share a factor; pinned ones keep the factor 1."""
    coupled = CoupledChannels(module.graph.nodes)
    products = []
    for node in module.graph.nodes:
        if node.op == "get_attr" or op_name(node) == "sym_size" or absorbing_layer(module, node) is not None:
            continue
        flow = read_flow(module, node) if node.op == "call_function" else None
        if flow is None or flow.law == "elementwise":
            for one in (node, *node.all_input_nodes):
                coupled.pin(one)
        elif flow.law == "product":
            products.append((node, flow))
        else:
            for source, index in flow.sources:
                coupled.couple(node, source, index)
    for node, flow in products:
        _couple_product(coupled, node, flow)
    return coupled


def _couple_product(coupled: CoupledChannels, node: fx.Node, flow: Flow) -> None:
    """One factor keeps its scale: the one that must, else the one with fewer values, else the second."""
    scaled, gate = flow.sources
    if (coupled.is_pinned(gate[0]), -_values(gate[0])) < (coupled.is_pinned(scaled[0]), -_values(scaled[0])):
        scaled, gate = gate, scaled
    coupled.pin(gate[0])
    coupled.couple(node, *scaled)


def _values(node: fx.Node) -> int:
    return torch.Size(shape(node)).numel()


def rescale(module: fx.GraphModule, coupled: CoupledChannels, factors: Tensor) -> int:
    """Writes factors into the weights and notes them for the runner.

    Args:
        module: The graph, changed in place.
        coupled: What `coupled_by_scale` found for it.
        factors: (coupled.size,), positive; the first, that of pinned channels, is 1.

    Returns:
        The number of layers rewritten.
    """
    sites = 0
    of = {node: factors[coupled.components(node)] for node in coupled.nodes}
    for node in calls(module):
        linear = absorbing_layer(module, node)
        if linear is not None and not (_neutral(of[linear.source]) and _neutral(of[node])):
            scale = of[node].to(linear.weight)
            weight = scale_inputs(linear, (1 / of[linear.source]).to(linear.weight))
            weight = scale_outputs(dataclasses.replace(linear, weight=weight), scale)
            rewrite_linear(module, linear, weight, None if linear.bias is None else linear.bias * scale)
            sites += 1
        if node in of and not _neutral(of[node]):
            node.meta["scaled"] = of[node]
    return sites


def _neutral(factors: Tensor) -> bool:
    return bool((factors == 1).all())


def scale_inputs(linear: Linear, scale: Tensor) -> Tensor:
    """Returns the weight with input channel i multiplied by scale[i]."""
    weight, tail = linear.weight, (1,) * linear.rank
    if linear.transposed:
        return weight * scale.reshape(-1, 1, *tail)
    grouped = weight.reshape(linear.groups, -1, *weight.shape[1:]) * scale.reshape(linear.groups, 1, -1, *tail)
    return grouped.reshape(weight.shape)


SPAN = 2.0**16
"""Largest change: a channel 65536 times below its target is as good as dead, and float16 could not hold the factor."""


def equalizing_factors(
    coupled: CoupledChannels, layers: Sequence[Linear], ranges: Mapping[str, Tensor], strength: float
) -> Tensor:
    """Returns the factor of each component, float64 (coupled.size,), 1 where nothing changes.

    Args:
        coupled: Which channels share a factor.
        layers: Convolutions and linear layers that can absorb factors.
        ranges: Largest magnitudes by node name, each (channels,).
        strength: 0 to 1, see the module docstring.
    """
    found = {node: ranges[node.name].double() for node in coupled.nodes if node.name in ranges and is_quantized(node)}
    largest = torch.zeros(coupled.size, dtype=torch.float64)
    for node, of_channel in found.items():
        largest.scatter_reduce_(0, coupled.components(node), of_channel, "amax")
    wanted = targets(coupled, largest, found) * shares(coupled, layers, largest) ** (1 - strength)
    factors = torch.where(largest > 0, wanted / largest, 1.0).clamp(1 / SPAN, SPAN)
    factors[PINNED] = 1
    return factors


def is_quantized(node: fx.Node) -> bool:
    """Returns whether a call's result is a tensor of its own when the network is quantized."""
    return not (sole_user(node) and op_name(next(iter(node.users))) == "relu")


def targets(coupled: CoupledChannels, largest: Tensor, found: Mapping[fx.Node, Tensor]) -> Tensor:
    """Returns the common range of all components that meet in a tensor, that of pinned channels where there are any.

    Args:
        coupled: The components.
        largest: Range of each component, (coupled.size,).
        found: Range of each channel of the quantized tensors.
    """
    groups, anchors = Components(coupled.size), torch.zeros_like(largest)
    for node, of_channel in found.items():
        components = coupled.components(node)
        free = sorted(set(components.tolist()) - {PINNED})
        for one in free[1:]:
            groups.join(free[0], one)
        if free and len(pinned := of_channel[components == PINNED]):
            anchors[free[0]] = max(float(anchors[free[0]]), float(pinned.max()))
    group = torch.tensor([groups.find(component) for component in range(coupled.size)])
    ours, theirs = (torch.zeros_like(largest).scatter_reduce(0, group, of, "amax")[group] for of in (largest, anchors))
    return torch.where(theirs > 0, theirs, ours)


def shares(coupled: CoupledChannels, layers: Sequence[Linear], largest: Tensor) -> Tensor:
    """Returns the largest share of each component in any row that reads it, in (0, 1], 1 where no row tells.

    Args:
        coupled: The components.
        layers: Who reads them.
        largest: Range of each component, (coupled.size,).
    """
    found = torch.zeros_like(largest)
    for linear in layers:
        if linear.transposed or linear.weight.shape[1] == 1:
            continue
        components = coupled.components(linear.source).reshape(linear.groups, -1)
        rows = linear.weight.double().abs().flatten(2).amax(2) if linear.rank else linear.weight.double().abs()
        weighed = rows.reshape(linear.groups, -1, rows.shape[1]) * largest[components][:, None]
        share = (weighed / weighed.amax(2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)).amax(1)
        found.scatter_reduce_(0, components.flatten(), share.flatten(), "amax")
    return torch.where(found > 0, found, 1.0)

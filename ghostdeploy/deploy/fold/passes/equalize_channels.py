"""Give the channels of a tensor ranges that one quantization step fits.

Every channel c carries a factor f_c > 0 and becomes f_c·y_c. A convolution takes the factors of its input off and puts
those of its output on,

    W'[o, i] = f_out[o] · W[o, i] / f_in[i],      b'[o] = f_out[o] · b[o],

and whatever lies between two convolutions must let the factor through: g(f·y) = f·g(y). ReLU, sums of tensors with
equal factors, concat, slices, pooling, resizes and gates (y·g, g unchanged) do; everything else, inputs, outputs and
sums with constants hold their channels at f = 1. Channels that must share a factor are found by union-find, so one rule
covers both halves of a Ghost module, depthwise chains, residual streams and G-Ghost stages. `equalize_factors` says how
large the factors are.

The rewriting is exact: the pass notes f in `meta["scaled"]`, and the runner compares every call with f·y.
Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019, arXiv
1906.04721), section 4.1.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_flow import absorbing_layer, read_flow
from ghostdeploy.deploy.fold.passes.channel_ties import ChannelTies
from ghostdeploy.deploy.fold.passes.equalize_factors import equalizing_factors
from ghostdeploy.deploy.fold.passes.fold_batch_norm import scale_outputs
from ghostdeploy.deploy.fold.passes.graph import calls, op_name, rewrite_linear, shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx

    from ghostdeploy.deploy.fold.passes.channel_flow import Flow
    from ghostdeploy.deploy.fold.passes.graph import Linear


class EqualizeChannels:
    """Factors move between convolutions until all channels of a tensor have fitting ranges.

    Args:
        ranges: Largest magnitude of each channel by node name, see `channel_ranges`.
        strength: 1 makes ranges equal, less gives a channel that its readers weigh little a smaller one; 0 to 1.
    """

    name = "EqualizeChannels"

    def __init__(self, ranges: Mapping[str, Tensor], *, strength: float = 0.5) -> None:
        self._ranges = ranges
        self._strength = strength

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        ties = scale_ties(module)
        layers = [layer for node in calls(module) if (layer := absorbing_layer(module, node)) is not None]
        factors = equalizing_factors(ties, layers, self._ranges, self._strength)
        return PassResult(module, rescale(module, ties, factors))


def scale_ties(module: fx.GraphModule) -> ChannelTies:
    """Returns which channels must share a factor; pinned ones keep the factor 1."""
    ties = ChannelTies(module.graph.nodes)
    products = []
    for node in module.graph.nodes:
        if node.op == "get_attr" or op_name(node) == "sym_size" or absorbing_layer(module, node) is not None:
            continue
        flow = read_flow(module, node) if node.op == "call_function" else None
        if flow is None or flow.law == "elementwise":
            for one in (node, *node.all_input_nodes):
                ties.pin(one)
        elif flow.law == "product":
            products.append((node, flow))
        else:
            for source, index in flow.sources:
                ties.tie(node, source, index)
    for node, flow in products:
        _tie_product(ties, node, flow)
    return ties


def _tie_product(ties: ChannelTies, node: fx.Node, flow: Flow) -> None:
    """One factor keeps its scale: the one that must, else the one with fewer values, else the second."""
    scaled, gate = flow.sources
    if (ties.is_pinned(gate[0]), -_values(gate[0])) < (ties.is_pinned(scaled[0]), -_values(scaled[0])):
        scaled, gate = gate, scaled
    ties.pin(gate[0])
    ties.tie(node, *scaled)


def _values(node: fx.Node) -> int:
    return torch.Size(shape(node)).numel()


def rescale(module: fx.GraphModule, ties: ChannelTies, factors: Tensor) -> int:
    """Writes factors into the weights and notes them for the runner.

    Args:
        module: The graph, changed in place.
        ties: What `scale_ties` found for it.
        factors: (ties.size,), positive; the first, that of pinned channels, is 1.

    Returns:
        The number of layers rewritten.
    """
    sites = 0
    of = {node: factors[ties.components(node)] for node in ties.nodes}
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

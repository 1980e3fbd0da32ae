"""The concatenation of a narrow Ghost module becomes part of its depthwise filter: nothing is copied.

    y = W·x + b        concat(y, d∗y)  =  [δ; d] ∗ [y; y]        [y; y] = [W; W]·x + [b; b]

δ is the filter that is 1 at its centre and 0 elsewhere. An activation f stays where it is: after W any channelwise
one; after d as well, if it is the same and f(f(v)) = f(v), as for ReLU.

The dense layer makes its n channels twice and the filter reads both, which is next to nothing as long as they fit into
vectors that would be half empty: kernels work on `LANES` channels at a time. Cost in values moved (`SplitConcat` counts
the same way), with ⌈m⌉ for m rounded up to whole vectors, k and K the kernel of the filter and the dense layer's
multiplications per output:

    saved  2·2n·P + CALL                                  the copy and its call
    added  2·n·P                                          n more channels written and read
    added  n·(K + k²)                                     their weights read, and stored in the file
    added  (⌈2n⌉ − ⌈n⌉)·(k²/DEPTHWISE + K/DENSE)·P          multiplications beyond vectors that are there anyway

so up to 8 channels the copy goes, on maps of every size, and with more channels on small maps whose weights are few.
Engines that keep channels in blocks of B (`block`; ONNX Runtime: 8) must leave the blocks for a copy of parts that are
no whole ones, and come back: three times what is saved.
Refused: a concatenation of anything but a dense layer and the depthwise filter on it, a filter with a stride or even
size, other readers of either. A filter per channel, not the grouped convolution of two filters per channel that this
could be as well: that one runs at a third of the speed.
Source: Han et al., CVPR 2020, section 3.1 (structure); measured in docs/performance.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import fx

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_parts import is_channelwise, is_dense, layer_call, map_parts
from ghostdeploy.deploy.fold.passes.graph import (
    Linear,
    aten,
    calls,
    named_arguments,
    op_name,
    read_linear,
    replace,
    shape,
)
from ghostdeploy.deploy.fold.passes.split_concat import CALL

LANES = 16
"""Channels that a kernel works on at a time: float32 in 512 bits, two registers of 256."""
DENSE, DEPTHWISE = 12, 3
"""Multiplications in the time of one value moved, by measurement of GhostNet's first block."""
_IDEMPOTENT = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})


@dataclass(frozen=True, slots=True)
class Site:
    """A Ghost module that ends in a concatenation."""

    cat: fx.Node
    dense: Linear
    depthwise: Linear
    before: fx.Node | None
    """Activation between the two layers."""
    behind: fx.Node | None
    """Activation of the depthwise layer."""

    def gain(self, block: int) -> float:
        """Values that are no longer moved, minus the price of what is done in addition; see the module docstring."""
        count, positions = self.dense.outputs, prod(shape(self.cat)[2:])
        kernel, inputs = prod(self.depthwise.weight.shape[2:]), prod(self.dense.weight.shape[1:])
        copies = 1 if count % block == 0 else 3
        lanes = _rounded(2 * count) - _rounded(count)
        work = lanes * (kernel / DEPTHWISE + inputs / DENSE)
        return copies * (4 * count * positions + CALL) - count * (inputs + kernel) - positions * (2 * count + work)


class DepthwiseConcat:
    """concat(y, d∗y) → [δ; d] ∗ [y; y]."""

    name = "DepthwiseConcat"

    def __init__(self, block: int = 1) -> None:
        """See the module docstring; `block` is B."""
        self._block = block

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, aten.cat.default):
            site = find_site(module, node)
            if site is not None and site.gain(self._block) > 0:
                rewrite(module, site)
                sites += 1
        return PassResult(module, sites)


def find_site(module: fx.GraphModule, cat: fx.Node) -> Site | None:
    """Returns the Ghost module that ends in a concatenation, None where it is no such module."""
    arguments = named_arguments(cat)
    if len(shape(cat)) != 4 or arguments["dim"] % 4 != 1 or len(arguments["tensors"]) != 2:
        return None
    whole, cheap = arguments["tensors"]
    behind, layer = _behind_activation(module, cheap)
    depthwise = read_linear(module, layer)
    if depthwise is None or depthwise.source is not whole or not _is_filter(depthwise):
        return None
    before, source = (None, whole) if read_linear(module, whole) else _behind_activation(module, whole)
    dense = read_linear(module, source)
    if dense is None or not is_dense(dense) or (behind is not None and not _is_repeated(before, behind)):
        return None
    readers = {whole: {layer, cat}, layer: {behind or cat}, cheap: {cat}}
    if before is not None:
        readers[source] = {before}
    if any(set(node.users) != users for node, users in readers.items()):
        return None
    return Site(cat, dense, depthwise, before, behind)


def rewrite(module: fx.GraphModule, site: Site) -> None:
    """Carries out a site."""
    dense, depthwise = site.dense, site.depthwise
    bias = None if dense.bias is None else torch.cat([dense.bias, dense.bias])
    value = layer_call(module, dense, dense.source, torch.cat([dense.weight, dense.weight]), bias)
    if site.before is not None:
        value = map_parts(site.before, [value])[0]
    centre = torch.zeros_like(depthwise.weight)
    centre[:, :, depthwise.weight.shape[2] // 2, depthwise.weight.shape[3] // 2] = 1
    shift = depthwise.bias
    shifts = None if shift is None else torch.cat([torch.zeros_like(shift), shift])
    value = layer_call(module, depthwise, value, torch.cat([centre, depthwise.weight]), shifts)
    if site.behind is not None:
        value = map_parts(site.behind, [value])[0]
    replace(site.cat, value)


def _behind_activation(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node | None, fx.Node]:
    """Returns an activation and what it reads, or no activation and the node itself."""
    if read_linear(module, node) is None and is_channelwise(module, node):
        return node, node.all_input_nodes[0]
    return None, node


def _is_filter(linear: Linear) -> bool:
    """Returns whether a depthwise layer keeps the map as it is: odd kernel, no stride, and padding to match."""
    if linear.transposed or linear.rank != 2 or linear.groups != linear.weight.shape[0] or linear.weight.shape[1] != 1:
        return False
    kernel = linear.weight.shape[2:]
    same = tuple(step * (size - 1) // 2 for step, size in zip(linear.dilation, kernel, strict=True))
    return all(size % 2 for size in kernel) and set(linear.stride) == {1} and tuple(linear.padding) == same


def _is_repeated(before: fx.Node | None, behind: fx.Node) -> bool:
    """Returns whether the activation after the filter changes nothing that has been through the one before it."""
    return (
        before is not None
        and op_name(before) == op_name(behind)
        and op_name(before) in _IDEMPOTENT
        and before.args[1:] == behind.args[1:]
        and before.kwargs == behind.kwargs
    )


def _rounded(count: int) -> int:
    return -(-count // LANES) * LANES

"""Two linear layers without anything between them become one, where that is fewer multiplications.

    W₂·(W₁∗x + b₁) + b₂  =  (W₂·W₁)∗x + (W₂·b₁ + b₂)            W₂ a 1×1 convolution, W₁ any dense one

per position C·M·k² + M·O multiplications become C·O·k², for C inputs, M channels between and O outputs: fewer whenever
O ≤ M, and more after a bottleneck, which stays. The second layer reads no padding, so the border is exact too.
Refused: a second layer with a kernel or padding (the first one's bias is missing where it reads padding), groups, a
first layer that something else reads. The attention branch of GhostNetV2 and V3 (1×1, then depthwise 1×5 and 5×1) has
no such pair: its two filters in one would take 25 multiplications for 10.
Source: Tang et al., GhostNetV2, NeurIPS 2022, section 4 (the branch); the rest is matrix algebra.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_parts import is_dense
from ghostdeploy.deploy.fold.passes.graph import Linear, calls, read_linear, replace, rewrite_linear, shape, sole_user

if TYPE_CHECKING:
    from torch import fx


class MergeLayers:
    """Layer, then 1×1 convolution → one layer."""

    name = "MergeLayers"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module):
            second = read_linear(module, node)
            first = None if second is None else read_linear(module, second.source)
            if first is not None and second is not None and can_merge(first, second) and saves(first, second):
                merge(module, first, second)
                sites += 1
        return PassResult(module, sites)


def can_merge(first: Linear, second: Linear) -> bool:
    """Returns whether the second layer maps each position of the first alone, and is its only reader."""
    if not (is_dense(first) and is_dense(second)) or first.rank != second.rank or not sole_user(first.node):
        return False
    pointwise = set(second.weight.shape[2:]) <= {1} and set(second.stride) <= {1} and not any(second.padding)
    return pointwise and len(shape(first.node)) == first.weight.ndim


def saves(first: Linear, second: Linear) -> bool:
    """Returns whether one layer takes fewer multiplications than two."""
    middle, inputs, *kernel = first.weight.shape
    return second.outputs * inputs * prod(kernel) < middle * inputs * prod(kernel) + second.outputs * middle


def merge(module: fx.GraphModule, first: Linear, second: Linear) -> None:
    """Gives the first layer the weights of both, and the readers of the second to the first."""
    matrix = second.weight.flatten(1)
    weight = (matrix @ first.weight.flatten(1)).reshape(-1, *first.weight.shape[1:])
    bias = None
    if first.bias is not None or second.bias is not None:
        bias = matrix @ first.bias_or_zero() + second.bias_or_zero()
    rewrite_linear(module, first, weight, bias)
    first.node.meta["shape"] = shape(second.node)
    replace(second.node, first.node)

"""A branch of a sum as one convolution: what `ReparameterizeBranches` adds up.

convolution            itself
identity               kernel 1, W[o, i] = 1 where i is o's own channel, else 0
scale s_o, shift t_o   the branch before it with W[o] · s_o and b_o · s_o + t_o
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.fold.passes.fold_scale_shift import read_scale_or_shift
from ghostdeploy.deploy.fold.passes.graph import Linear, Pair, aten, read_linear, shape, sole_user

if TYPE_CHECKING:
    from torch import Tensor, fx


@dataclass(frozen=True, slots=True)
class Branch:
    """b + W ∗ x, a convolution of `source`; an identity may take any group count."""

    source: fx.Node
    weight: Tensor | None
    """(out, in/groups, *kernel); None for a pure per-channel scale."""
    scale: Tensor
    """(out,) factor on top of the weight, or of the identity."""
    bias: Tensor
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    name: str
    """Attribute name for new weights."""

    @property
    def kernel(self) -> Pair:
        """Kernel size per spatial dimension."""
        return (1,) * len(self.stride) if self.weight is None else tuple(self.weight.shape[2:])


def read_branch(module: fx.GraphModule, leaf: fx.Node) -> Branch | None:
    """Reads one term of a sum as a branch; an unknown node is the identity of itself.

    Args:
        module: The graph.
        leaf: A term with (N, C, *spatial).

    Returns:
        The branch, None where the term has no channels.
    """
    sizes = shape(leaf)
    if len(sizes) < 3:
        return None
    found = read_scale_or_shift(module, leaf) if leaf.target in (aten.mul.Tensor, aten.add.Tensor) else None
    if found is not None and sole_user(leaf):
        inner, value = found
        before = read_branch(module, inner) if sole_user(inner) or not is_layer(module, inner) else identity(inner)
        if before is None:
            return None
        if leaf.target is aten.mul.Tensor:
            return replace(before, scale=before.scale * value, bias=before.bias * value)
        return replace(before, bias=before.bias + value)
    linear = read_linear(module, leaf)
    if linear is None or linear.transposed or linear.rank == 0 or not sole_user(leaf):
        return identity(leaf)
    return of_convolution(linear)


def is_layer(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns whether a node is a convolution, or a scaled one, that could be absorbed into a branch."""
    return read_linear(module, node) is not None or node.target in (aten.mul.Tensor, aten.add.Tensor)


def of_convolution(linear: Linear) -> Branch:
    """Returns the branch of a convolution."""
    ones = linear.weight.new_ones(linear.outputs)
    return Branch(
        linear.source,
        linear.weight,
        ones,
        linear.bias_or_zero(),
        linear.stride,
        linear.padding,
        linear.dilation,
        linear.groups,
        linear.name,
    )


def identity(node: fx.Node) -> Branch:
    """Returns the branch x → x."""
    channels, rank = shape(node)[1], len(shape(node)) - 2
    ones = torch.ones(channels, dtype=node.meta["dtype"])
    unit, none = (1,) * rank, (0,) * rank
    return Branch(node, None, ones, torch.zeros_like(ones), unit, none, unit, channels, node.name)


def as_kernel(branch: Branch, kernel: Pair, groups: int) -> Tensor:
    """Returns the branch's weight as (out, in/groups, *kernel), zeros around it and between its groups.

    Args:
        branch: Any branch whose group count is a multiple of `groups`.
        kernel: A size that differs from the branch's by an even number in each dimension.
        groups: Group count of the sum.
    """
    weight = branch.weight
    if weight is None:
        weight = torch.ones(len(branch.scale), 1, *branch.kernel, dtype=branch.scale.dtype)
    scaled = weight * branch.scale.reshape(-1, *(1,) * (weight.ndim - 1))
    if branch.groups != groups:
        scaled = _widen(scaled, branch.groups, groups)
    margins = [(new - old) // 2 for new, old in zip(kernel, scaled.shape[2:], strict=True)]
    return torch.nn.functional.pad(scaled, [m for margin in reversed(margins) for m in (margin, margin)])


def _widen(weight: Tensor, old: int, new: int) -> Tensor:
    """Writes a convolution of `old` groups as one of `new` groups, `old` a multiple of `new`."""
    outputs, inputs = weight.shape[0], weight.shape[1]
    per_group = inputs * old // new
    wide = weight.new_zeros(outputs, per_group, *weight.shape[2:])
    for output in range(outputs):
        start = (output // (outputs // old)) * inputs % per_group
        wide[output, start : start + inputs] = weight[output]
    return wide

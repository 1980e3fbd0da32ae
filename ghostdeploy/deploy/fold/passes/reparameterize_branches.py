"""Add up parallel linear branches into one convolution.

    Σ_b (W_b ∗ x + b_b)  =  (Σ_b pad(W_b)) ∗ x + Σ_b b_b

for branches of the same x that meet in a tree of additions, however many and however nested: k×k and 1×1 convolutions,
identities, per-channel scales (a BatchNorm on the identity). `pad` puts a smaller kernel in the centre of the largest.
Sources: Ding et al., RepVGG (CVPR 2021, section 3.3); Vasu et al., MobileOne (CVPR 2023); Chen et al., RepGhost
(arXiv 2211.06088); Liu et al., GhostNetV3 (arXiv 2404.11202, section 3.1).

Limits. Stride and dilation must be equal (a 1×1 kernel has no dilation of its own). Centres must coincide: kernel sizes
differ by an even number and paddings by half of it, times the dilation. At stride 1 an identity joins only if the
convolution keeps the size. A branch with more groups is written with fewer only if another branch has that few already,
so the sum never has more weights than its largest branch. A term that any other node reads stays outside. Terms that
do not fit stay terms of the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.fx import Node

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.branches import Branch, as_kernel, read_branch
from ghostdeploy.deploy.fold.passes.graph import (
    aten,
    calls,
    constant,
    insert_call,
    insert_constant,
    replace,
    shape,
    sole_user,
)

if TYPE_CHECKING:
    from torch import Tensor, fx

_CONVOLUTION = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


class ReparameterizeBranches:
    """Sum of linear branches of one tensor → one convolution."""

    name = "ReparameterizeBranches"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring; roots are taken from the end, so that a sum is seen whole before its parts."""
        sites = 0
        for root in reversed(list(calls(module, aten.add.Tensor))):
            if is_plain_sum(module, root) and not is_inner(module, root):
                sites += merge(module, root)
        return PassResult(module, sites)


def is_plain_sum(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns whether a call adds two tensors of its own shape, neither of them constant."""
    return (
        node.target is aten.add.Tensor
        and not node.kwargs
        and len(node.args) == 2
        and all(
            isinstance(term, Node) and constant(module, term) is None and shape(term) == shape(node)
            for term in node.args
        )
    )


def is_inner(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns whether a sum is only a term of a larger one."""
    return sole_user(node) and is_plain_sum(module, next(iter(node.users)))


def terms(module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Returns the terms of a sum, inner sums opened."""
    found = []
    for term in node.args:
        assert isinstance(term, Node)
        found += terms(module, term) if is_plain_sum(module, term) and sole_user(term) else [term]
    return found


def merge(module: fx.GraphModule, root: fx.Node) -> int:
    """Merges what can be merged in one sum; returns the number of new convolutions."""
    leaves = terms(module, root)
    branches = {leaf: branch for leaf in leaves if (branch := read_branch(module, leaf)) is not None}
    rest, merged = list(leaves), []
    for group in groups_of(branches, leaves):
        members = [branches[leaf] for leaf in group]
        merged.append(write(module, root, members))
        for leaf in group:
            rest.remove(leaf)
    if not merged:
        return 0
    total, *others = merged + rest
    for other in others:
        total = insert_call(root, aten.add.Tensor, total, other, like=root)
    replace(root, total)
    return len(merged)


def groups_of(branches: dict[fx.Node, Branch], leaves: list[fx.Node]) -> list[list[fx.Node]]:
    """Returns the sets of terms that become one convolution each, every set with at least two terms and a kernel."""
    found = []
    left = [leaf for leaf in dict.fromkeys(leaves) if leaf in branches and leaves.count(leaf) == 1]
    while left:
        base = max(left, key=lambda leaf: weight_count(branches[leaf]))
        left.remove(base)
        if branches[base].weight is None:
            break
        group = [base]
        for leaf in list(left):
            if fits(branches[leaf], branches[base]):
                group.append(leaf)
                left.remove(leaf)
        if len(group) > 1:
            found.append(group)
    return found


def weight_count(branch: Branch) -> int:
    """Returns the number of weights, 0 for a scaled identity."""
    return 0 if branch.weight is None else branch.weight.numel()


def fits(branch: Branch, base: Branch) -> bool:
    """Returns whether `branch` can be written into the kernel of `base`; see the limits above."""
    if branch.source is not base.source or branch.stride != base.stride or len(branch.scale) != len(base.scale):
        return False
    if branch.groups % base.groups or (branch.weight is None and shape(branch.source)[1] != len(base.scale)):
        return False
    sides = zip(branch.kernel, base.kernel, branch.padding, base.padding, branch.dilation, base.dilation, strict=True)
    for small, large, pad, base_pad, dilation, base_dilation in sides:
        margin = large - small
        if margin < 0 or margin % 2 or (small > 1 and dilation != base_dilation):
            return False
        if base_pad - pad != base_dilation * margin // 2:
            return False
    return True


def write(module: fx.GraphModule, root: fx.Node, members: list[Branch]) -> fx.Node:
    """Inserts the convolution that is the sum of `members`, the first of which has the largest kernel."""
    base = members[0]
    weight: Tensor = sum(as_kernel(branch, base.kernel, base.groups) for branch in members)  # type: ignore[assignment]
    bias: Tensor = sum(branch.bias for branch in members)  # type: ignore[assignment]
    return insert_call(
        root,
        _CONVOLUTION[len(base.stride)],
        base.source,
        insert_constant(module, root, weight, f"{base.name}_weight"),
        insert_constant(module, root, bias, f"{base.name}_bias"),
        list(base.stride),
        list(base.padding),
        list(base.dilation),
        base.groups,
        like=root,
    )

"""Fold constant per-channel factors and offsets into the layer before them.

    c·(W∗x + b)   =  (c·W)∗x + c·b
    (W∗x + b) + d =  W∗x + (b + d)

for constants c, d that broadcast along channels only. They come from layer scales, and from a BatchNorm after a sum of
branches that became one layer. Needs the layer to have no other reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.fold_batch_norm import ScaleShift, fold_after
from ghostdeploy.deploy.fold.passes.graph import aten, calls, constant, per_channel, read_linear, replace, sole_user

if TYPE_CHECKING:
    from torch import Tensor, fx


class FoldScaleShift:
    """Layer, then constant multiply or add → the layer."""

    name = "FoldScaleShift"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, aten.mul.Tensor, aten.add.Tensor):
            found = read_scale_or_shift(module, node)
            if found is None or not sole_user(found[0]) or read_linear(module, found[0]) is None:
                continue
            source, value = found
            one, zero = value.new_ones(value.shape), value.new_zeros(value.shape)
            form = ScaleShift(value, zero) if node.target is aten.mul.Tensor else ScaleShift(one, value)
            if fold_after(module, source, form):
                replace(node, source)
                sites += 1
        return PassResult(module, sites)


def read_scale_or_shift(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Tensor] | None:
    """Returns (x, vector (channels,)) of `x · c` or `x + d` with a constant per channel, None for anything else."""
    if node.kwargs or len(node.args) != 2:
        return None  # add with alpha
    for source, other in (node.args, node.args[::-1]):
        value = per_channel(constant(module, other), node)
        if value is not None and hasattr(source, "meta") and source.meta.get("shape") == node.meta.get("shape"):  # type: ignore[union-attr]
            return source, value  # type: ignore[return-value]
    return None

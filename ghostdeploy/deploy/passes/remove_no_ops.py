"""Delete calls that return their input.

    dropout(x) in eval mode, alias, detach, clone, contiguous, a cast to the type it has:   x
    slice(x, dim, 0, end ≥ size, 1)                                                         x
    x + 0,  x · 1,  x / 1                                                                   x

The `[:, :out]` at the end of a Ghost module is such a slice whenever ceil(out/s)·s = out, which holds for every
published width; where it is not, the slice drops channels and stays. A slice of the batch dimension is deleted only if
it has no end, because the batch may be free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.passes.base import PassResult
from ghostdeploy.deploy.passes.graph import aten, named_arguments, replace, shape

if TYPE_CHECKING:
    from torch import fx

_ALWAYS = frozenset(
    {
        aten.alias.default,
        aten.detach.default,
        aten.detach_.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.lift_fresh_copy.default,
    }
)
_DROPOUT = frozenset(
    {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default, aten.feature_alpha_dropout.default}
)
_CASTS = frozenset({aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default})
_NEUTRAL = {
    aten.add.Tensor: 0,
    aten.add.Scalar: 0,
    aten.sub.Tensor: 0,
    aten.mul.Tensor: 1,
    aten.mul.Scalar: 1,
    aten.div.Tensor: 1,
}
_NO_END = 2**62


class RemoveNoOps:
    """x → x."""

    name = "RemoveNoOps"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in list(module.graph.nodes):
            source = returned_input(node) if node.op == "call_function" else None
            if source is not None:
                replace(node, source)
                sites += 1
        return PassResult(module, sites)


def returned_input(node: fx.Node) -> fx.Node | None:
    """Returns the node whose value this call returns unchanged, None if it changes anything."""
    target = node.target
    first = node.args[0] if node.args else None
    if target in _NEUTRAL:
        return neutral_operand(node, _NEUTRAL[target])
    if not hasattr(first, "meta"):
        return None
    if target in _ALWAYS or (target in _DROPOUT and not named_arguments(node)["train"]):
        return first  # type: ignore[return-value]  # a node: it has meta
    if target in _CASTS and same_type(node, first):  # type: ignore[arg-type]
        return first  # type: ignore[return-value]
    if target is aten.slice.Tensor and keeps_everything(node, first):  # type: ignore[arg-type]
        return first  # type: ignore[return-value]
    return None


def same_type(node: fx.Node, source: fx.Node) -> bool:
    """Tells whether a cast asks for the type its input has, on the same device."""
    arguments = named_arguments(node)
    value = source.meta.get("val")
    device = arguments.get("device")
    elsewhere = device is not None and torch.device(device).type != "cpu"
    return value is not None and arguments["dtype"] in {None, value.dtype} and not elsewhere


def keeps_everything(node: fx.Node, source: fx.Node) -> bool:
    """Tells whether a slice keeps every element along its dimension."""
    arguments = named_arguments(node)
    sizes = shape(source)
    start, end, step = arguments["start"], arguments["end"], arguments["step"]
    if not sizes or step != 1 or start not in {None, 0}:
        return False
    dim = arguments["dim"] % len(sizes)
    if end is None or (isinstance(end, int) and end >= _NO_END):
        return True
    return dim != 0 and isinstance(end, int) and end >= sizes[dim]


def neutral_operand(node: fx.Node, neutral: int) -> fx.Node | None:
    """Returns x for `x + 0` and its kin, provided that shape and type stay."""
    left, right = node.args[0], node.args[1]
    commutes = node.target not in {aten.sub.Tensor, aten.div.Tensor}
    for value, other in ((left, right), (right, left))[: 2 if commutes else 1]:
        is_node = hasattr(value, "meta")
        if is_node and isinstance(other, int | float) and other == neutral and shape(value) == shape(node):  # type: ignore[arg-type]
            return value  # type: ignore[return-value]
    return None

"""Delete calls that return their input.

    dropout(x) in eval mode, alias, detach, clone, contiguous, a cast to the type it has    x
    x[a:b] along a dimension of size n, a ≤ 0 and b ≥ n, step 1                             x
    reshape, flatten, expand or nearest resize to the shape x has                     x
    concat of x alone                                                                       x
    x + 0,  x · 1,  x / 1                                                                   x
    x[a:b][c:d:k] along one dimension                                                       x[a+c : a+min(d, b−a) : k]

The `[:, :out]` at the end of a Ghost module is such a slice whenever ceil(out/s)·s = out, which holds for every
published width; where it is not, the slice drops channels and stays (Han et al., CVPR 2020, section 3.1). The batch may
be free: along dimension 0 a slice is deleted only if it runs from the start without end, and bounds never merge. A
graph that reads memory by strides keeps its copies: they decide what it reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import (
    CASTS,
    aten,
    calls,
    insert_call,
    named_arguments,
    op_name,
    precision,
    replace,
    shape,
    sole_user,
)

if TYPE_CHECKING:
    from torch import fx

_ALWAYS = frozenset({"alias", "detach", "clone", "contiguous", "lift_fresh_copy"})
_COPIES = frozenset({"clone", "contiguous"})
_DROPOUT = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
_SHAPES = frozenset({"reshape", "flatten", "unflatten", "expand"})
_RESIZES = frozenset({"upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d"})
_NEUTRAL: dict[Any, int] = {
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
        by_strides = any(op_name(node).startswith("as_strided") for node in calls(module))
        for node in calls(module):
            if by_strides and op_name(node) in _COPIES:
                continue
            source = returned_input(node)
            if source is None and node.target is aten.slice.Tensor:
                source = merged_slice(node)
            if source is not None:
                replace(node, source)
                sites += 1
        return PassResult(module, sites)


def returned_input(node: fx.Node) -> fx.Node | None:
    """Returns the node whose value this call returns unchanged, None if it changes anything."""
    if node.target in _NEUTRAL:
        return neutral_operand(node, _NEUTRAL[node.target])
    source = node.args[0] if node.args else None
    if op_name(node) == "cat" and isinstance(source, list | tuple) and len(source) == 1:
        return source[0] if isinstance(source[0], Node) else None
    return source if isinstance(source, Node) and keeps_value(node, source) else None


def keeps_value(node: fx.Node, source: fx.Node) -> bool:
    """Returns whether a call gives the value of its first argument."""
    name = op_name(node)
    if name in _ALWAYS:
        return True
    if name in _DROPOUT:
        return not named_arguments(node)["train"]
    if node.target in CASTS:
        return same_type(node, source)
    if name in _SHAPES:
        return same_shape(node, source)
    if name in _RESIZES:
        return bool(shape(node)) and shape(node) == shape(source)
    return node.target is aten.slice.Tensor and keeps_everything(node, source)


def same_type(node: fx.Node, source: fx.Node) -> bool:
    """Returns whether a cast is to the type its input has, on the same device."""
    device = named_arguments(node).get("device")
    elsewhere = device is not None and torch.device(device).type != "cpu"
    same = precision(source) == precision(node) and source.meta.get("dtype") == node.meta.get("dtype")
    return precision(node) is not None and same and not elsewhere


def same_shape(node: fx.Node, source: fx.Node) -> bool:
    """Returns whether a call keeps the shape for every batch, not just for the example's."""
    sizes = shape(source)
    if not sizes or sizes != shape(node):
        return False
    if op_name(node) in {"flatten", "unflatten"}:
        return True  # no number in the call stands for the batch
    wanted = named_arguments(node).get("size", named_arguments(node).get("shape"))
    # A number in the call fixes dimension 0 for good; an expression of the batch may fit the example only.
    first = wanted[0] if wanted else None
    return not isinstance(first, Node) or (op_name(first) == "sym_size" and first.args[1:] == (0,))


def keeps_everything(node: fx.Node, source: fx.Node) -> bool:
    """Returns whether a slice keeps every element along its dimension."""
    arguments = named_arguments(node)
    if arguments["start"] in {None, 0} and arguments["step"] == 1 and is_open(arguments["end"]):
        return True
    found = bounds(node, source)
    return found is not None and found == (0, shape(source)[dimension(node, source)], 1)


def merged_slice(node: fx.Node) -> fx.Node | None:
    """Returns a new slice of the inner slice's source, None where this call is no such pair."""
    inner = node.args[0]
    if not isinstance(inner, Node) or inner.target is not aten.slice.Tensor or not sole_user(inner):
        return None
    source: Any = inner.args[0]
    outer_bounds, inner_bounds = bounds(node, inner), bounds(inner, source)
    same = shape(inner) and dimension(node, inner) == dimension(inner, source)
    if outer_bounds is None or inner_bounds is None or not same or inner_bounds[2] != 1:
        return None
    start, end, step = outer_bounds
    offset, dim = inner_bounds[0], dimension(node, inner)
    return insert_call(node, aten.slice.Tensor, source, dim, offset + start, offset + end, step, like=node)


def bounds(node: fx.Node, source: fx.Node) -> tuple[int, int, int] | None:
    """Returns start, end and step counted from the front; None where one is computed or the dimension is the batch."""
    arguments = named_arguments(node)
    start, end, step = arguments["start"] or 0, arguments["end"], arguments["step"]
    end = _NO_END if end is None else end
    if not shape(source) or not all(isinstance(value, int) for value in (start, end, step)):
        return None
    dim = dimension(node, source)
    size = shape(source)[dim]
    start, end = (min(max(value + size if value < 0 else value, 0), size) for value in (start, end))
    return None if dim == 0 else (start, max(start, end), step)


def dimension(node: fx.Node, source: fx.Node) -> int:
    """Returns the dimension that a slice cuts, counted from the front."""
    return int(named_arguments(node)["dim"]) % len(shape(source))


def is_open(end: object) -> bool:
    """Returns whether a slice has no end."""
    return end is None or (isinstance(end, int) and end >= _NO_END)


def neutral_operand(node: fx.Node, neutral: int) -> fx.Node | None:
    """Returns x for `x + 0` and its kin, provided that shape and type stay."""
    left, right = node.args[0], node.args[1]
    commutes = node.target not in {aten.sub.Tensor, aten.div.Tensor}
    for value, other in ((left, right), (right, left))[: 2 if commutes else 1]:
        if isinstance(value, Node) and isinstance(other, int | float) and other == neutral:
            same = shape(value) == shape(node) and precision(value) == precision(node)
            return value if same else None
    return None

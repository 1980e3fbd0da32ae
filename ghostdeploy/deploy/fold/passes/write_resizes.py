"""Rewrites resizes that engines compute differently, or not at all, as plain arithmetic.

    interpolation   Y = A·X·Bᵀ        per channel; A (m, n) and B (m', n') hold the weights of rows and columns
    copies          y[i, j] = x[a_i, b_j]

A, B, a and b come from PyTorch itself, which resizes an identity matrix and a ramp. This concerns

    antialias       OpenVINO ignores it when it makes images smaller; LiteRT has no operator
    factors f       where out[i] depends on 1/f and not on n/m (`recompute_scale_factor` is off and n·f no whole
                    number), which is what `FixResizeSize` leaves: converters use only the sizes

Refused: sizes that are not numbers; copies whose places differ between float32 and float64; interpolation by factors
that its sizes give as well.
Source: documentation of `torch.nn.functional.interpolate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import (
    aten,
    calls,
    insert_call,
    insert_constant,
    named_arguments,
    replace,
    shape,
)

if TYPE_CHECKING:
    from torch import Tensor, fx

_ANTIALIASED = frozenset({aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec})
_INTERPOLATED = frozenset({aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec})
_COPIED = frozenset({aten.upsample_nearest2d.vec, aten._upsample_nearest_exact2d.vec})
_EXACT = 1e-12


class WriteResizes:
    """Antialiased resizes and those by odd factors → matrix products or gathers."""

    name = "WriteResizes"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, *_ANTIALIASED, *_INTERPOLATED, *_COPIED):
            sizes = (*shape(node.args[0])[2:], *shape(node)[2:])
            if len(sizes) != 4 or not all(isinstance(size, int) for size in sizes):
                continue
            if node.target in _COPIED:
                sites += _gather(module, node)
            elif node.target in _ANTIALIASED or _needs_its_factors(node):
                replace(node, _multiplied(module, node))
                sites += 1
        return PassResult(module, sites)


def _multiplied(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    dtype, found = node.meta["dtype"], node.args[0]
    rows, columns = weights_of(node, 0), weights_of(node, 1)
    right = insert_constant(module, node, columns.T.to(dtype), "resize_columns")
    found = insert_call(node, aten.matmul.default, found, right)
    left = insert_constant(module, node, rows.to(dtype), "resize_rows")
    return insert_call(node, aten.matmul.default, left, found, like=node)


def _gather(module: fx.GraphModule, node: fx.Node) -> bool:
    values = named_arguments(node)
    if not values["scale_factors"]:
        return False
    both = [[weights_of(node, axis, dtype).argmax(1) for axis in (0, 1)] for dtype in (torch.float32, torch.float64)]
    if not all(torch.equal(one, other) for one, other in zip(*both, strict=True)):
        return False
    found: Any = node.args[0]
    for axis, places in zip((2, 3), both[0], strict=True):
        name = insert_buffer(module, node, places, "resize_places")
        found = insert_call(node, aten.index_select.default, found, axis, name)
    replace(node, found)
    return True


def insert_buffer(module: fx.GraphModule, before: fx.Node, values: Tensor, hint: str) -> fx.Node:
    """Stores whole numbers as a buffer of the module and returns a node that reads it, placed before `before`."""
    name, number = hint, 0
    while hasattr(module, name):
        name, number = f"{hint}_{number}", number + 1
    module.register_buffer(name, values)
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(name)
    node.meta |= {"shape": tuple(values.shape), "dtype": values.dtype}
    return node


def weights_of(node: fx.Node, axis: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns what a resize makes of one axis, (values out, values in): it resizes the columns of an identity.

    Args:
        node: The call; it works on each axis alone.
        axis: 0 for rows, 1 for columns.
        dtype: Precision of the resize.
    """
    height, width = shape(node.args[0])[2:]
    n = (height, width)[axis]
    alike = torch.eye(n, dtype=dtype).reshape((1, n, n, 1) if axis == 0 else (1, n, 1, n))
    target: Any = node.target
    rest = {key: value for key, value in named_arguments(node).items() if key not in ("input", "self")}
    if rest.get("output_size") is not None:
        rest["output_size"] = list(shape(node)[2:])
    found: Tensor = target(alike.expand(1, n, height, width).contiguous(), **rest)[0]
    return (found[:, :, 0] if axis == 0 else found[:, 0]).T.contiguous()


def _needs_its_factors(node: fx.Node) -> bool:
    """Returns whether an interpolation by factors differs from the one by its sizes."""
    values = named_arguments(node)
    if not values["scale_factors"]:
        return False
    target: Any = node.target
    before, after = shape(node.args[0])[2:], shape(node)[2:]
    ramp = torch.linspace(0, 1, before[0] * before[1], dtype=torch.float64).reshape(1, 1, *before)
    own = target(ramp, None, values["align_corners"], values["scale_factors"])
    by_size = target(ramp, list(after), values["align_corners"], None)
    return bool((own - by_size).abs().max() > _EXACT)

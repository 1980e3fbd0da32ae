"""A global average over a concatenation becomes a concatenation of averages.

    mean(concat(a, b, …)) = concat(mean(a), mean(b), …)        mean over height and width, concat along the channels

The average never mixes channels, so both sides are equal to the last bit, but the right one copies vectors instead of
maps: the `mix` of a G-Ghost stage concatenates all its maps only to average them (3240×14×14 in G-Ghost-RegNetX-3.2).
Refused: a concatenation that something else reads too (it would be made anyway), along another dimension, or an average
over anything but the full map. Source: Han et al., IJCV 2022, section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import (
    calls,
    insert_call,
    named_arguments,
    op_name,
    replace,
    shape,
    sole_user,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class PoolBeforeConcat:
    """Averages the parts of a concatenation instead of the whole."""

    name = "PoolBeforeConcat"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module):
            cat = node.args[0] if is_global_average(node) else None
            if not isinstance(cat, fx.Node) or op_name(cat) != "cat" or not sole_user(cat):
                continue
            arguments = named_arguments(cat)
            if arguments["dim"] % 4 != 1:
                continue
            parts = [insert_call(node, node.target, part, *node.args[1:]) for part in arguments["tensors"]]
            for part in parts:
                part.kwargs = node.kwargs
            replace(node, insert_call(node, cat.target, parts, 1, like=node))
            sites += 1
        return PassResult(module, sites)


def is_global_average(node: fx.Node) -> bool:
    """Returns whether a call averages (N, C, H, W) over the full height and width."""
    name = op_name(node)
    if name not in {"mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool2d"}:
        return False
    arguments = named_arguments(node)
    sizes = shape(arguments["self"])
    if len(sizes) != 4:
        return False
    if name == "mean":
        dims: Sequence[int] | None = arguments.get("dim")
        return dims is not None and sorted(dim % 4 for dim in dims) == [2, 3]
    if name == "avg_pool2d":
        return spread(arguments["kernel_size"], 2) == sizes[2:] and not any(spread(arguments["padding"], 2))
    return spread(arguments["output_size"], 2) == (1, 1)

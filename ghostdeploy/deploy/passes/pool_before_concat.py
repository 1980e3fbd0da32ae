"""A global average over a concatenation becomes a concatenation of averages.

    mean(concat(a, b, …)) = concat(mean(a), mean(b), …)        mean over height and width, concat along the channels

The average never mixes channels, so both sides are equal to the last bit, but the right one copies vectors instead of
maps: the `mix` of a G-Ghost stage concatenates all its maps only to average them (3240×14×14 in G-Ghost-RegNetX-3.2).
Refused: a concatenation that something else reads too (it would be made anyway), along another dimension, or an average
over anything but the full map. Source: Han et al., IJCV 2022, section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from ghostdeploy.deploy.passes import graph
from ghostdeploy.deploy.passes.base import PassResult


if TYPE_CHECKING:
    from collections.abc import Sequence


class PoolBeforeConcat:
    """Averages the parts of a concatenation instead of the whole."""

    name = "pool-before-concat"

    def run(self, gm: fx.GraphModule) -> PassResult:
        """Rewrites `gm`, see `Pass.run`."""
        sites = 0
        for node in list(gm.graph.nodes):
            cat = node.args[0] if is_global_average(node) else None
            if not isinstance(cat, fx.Node) or graph.op(cat) != "cat" or len(cat.users) != 1:
                continue
            values = graph.arguments(cat)
            if values["dim"] % 4 != 1:
                continue
            with gm.graph.inserting_before(node):
                parts = [
                    gm.graph.call_function(node.target, (part, *node.args[1:]), node.kwargs)
                    for part in values["tensors"]
                ]
                graph.replace(node, graph.call(gm, cat.target, [parts, 1]))
            sites += 1
        return PassResult(gm, sites)


def is_global_average(node: fx.Node) -> bool:
    """Whether a call averages (N, C, H, W) over the full height and width."""
    name = graph.op(node)
    if name not in ("mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool2d"):
        return False
    values = graph.arguments(node)
    sizes = graph.shape(values["self"])
    if sizes is None or len(sizes) != 4:
        return False
    if name == "mean":
        dims: Sequence[int] | None = values.get("dim")
        return dims is not None and sorted(dim % 4 for dim in dims) == [2, 3]
    if name == "avg_pool2d":
        return _is_whole(values, sizes)
    return _pair(values["output_size"]) == (1, 1)


def _is_whole(values: dict[str, Any], sizes: graph.Shape) -> bool:
    return _pair(values["kernel_size"]) == sizes[2:] and _pair(values["padding"]) == (0, 0)


def _pair(value: Any) -> tuple[Any, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    return items * 2 if len(items) == 1 else items

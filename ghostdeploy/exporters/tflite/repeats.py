"""Repeated maps: LiteRT's converter brings maps to NHWC and repeats along the axes of NCHW (litert-torch 0.10).

    x.repeat(1, 2, 1, 1)    becomes   cat([x, x], 1), which is the same

So one repeated along channels grew in height instead, and one along height in width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import fx

aten = torch.ops.aten


def join_repeats(graph_module: Any) -> Any:
    """Writes repeats as concatenations.

    Args:
        graph_module: Of a program; changed in place and returned.
    """
    graph = graph_module.graph
    for node in list(graph.find_nodes(op="call_function", target=aten.repeat.default)):
        source, times = node.args
        if not all(isinstance(count, int) and count > 0 for count in times):
            continue
        with graph.inserting_before(node):
            joined = _lifted(graph, source, len(times))
            for axis, count in enumerate(times):
                if count > 1:
                    joined = graph.call_function(aten.cat.default, ([joined] * count, axis))
                    joined.meta = {key: value for key, value in node.meta.items() if key != "val"}
        if joined is not source:
            joined.meta = dict(node.meta)
        node.replace_all_uses_with(joined)
        graph.erase_node(node)
    graph_module.recompile()
    return graph_module


def _lifted(graph: fx.Graph, source: fx.Node, rank: int) -> fx.Node:
    """Returns a tensor with axes of size 1 in front, as many as the repeat names more than it has."""
    known = source.meta["val"]
    if known.ndim == rank:
        return source
    return graph.call_function(aten.reshape.default, (source, [1] * (rank - known.ndim) + list(known.shape)))

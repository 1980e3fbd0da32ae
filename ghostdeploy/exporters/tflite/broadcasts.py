"""Expanded and repeated maps in forms that LiteRT's converter reads as they are meant (litert-torch 0.10).

    x · y.expand_as(x)            becomes   x · y, which spreads y by itself: what the converter makes of the first in
                                            NHWC is refused ("operands don't have broadcast-compatible shapes") or wrong
    c.expand(shape)               becomes   a constant of that shape
    x.repeat(1, 2, 1, 1)          becomes   cat([x, x], 1): it repeats along the axes that NCHW had
    select_scatter(x, y, 1, 3)    becomes   cat([x[:, :3], y[:, None], x[:, 4:]], 1), as it is expanded inside

The squeeze-and-excitation of SENet (`x * y.expand_as(x)`) and `F.normalize` are of the first kind.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import fx

aten = torch.ops.aten

_EXPANDED = frozenset({aten.expand.default, aten.expand_as.default})
MOST = 1 << 22
"""Values of the largest constant that is written out."""
_SPREADING = frozenset(
    {
        *(getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div", "fmod", "remainder")),
        *(getattr(aten, name).Tensor for name in ("eq", "ne", "lt", "le", "gt", "ge")),
        *(getattr(aten, name).default for name in ("maximum", "minimum", "atan2", "logical_and", "logical_or")),
        aten.pow.Tensor_Tensor,
        aten.where.self,
    }
)
"""Operations that spread their operands to one shape."""


def write_broadcasts(graph_module: Any) -> Any:
    """Writes these operations so.

    Args:
        graph_module: Of a program; changed in place and returned.
    """
    for node in [node for node in graph_module.graph.nodes if node.target in _EXPANDED]:
        _write_expand(graph_module, node)
    for node in [node for node in graph_module.graph.nodes if node.target in _WRITERS]:
        with graph_module.graph.inserting_before(node):
            written = _WRITERS[node.target](graph_module.graph, node)
        if written is not None:
            _replace(node, written)
    graph_module.recompile()
    return graph_module


def _replace(node: fx.Node, written: fx.Node) -> None:
    if not written.meta:
        written.meta = dict(node.meta)
    node.replace_all_uses_with(written)
    node.graph.erase_node(node)


def _write_expand(graph_module: Any, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    for user in list(node.users):
        shapes = [_shape(source if one is node else one) for one in user.all_input_nodes]
        if user.target in _SPREADING and _spread(*shapes) == _shape(user):
            user.replace_input_with(node, source)
    if not node.users:
        node.graph.erase_node(node)
    elif _shape(node).numel() <= MOST and (value := _constant(graph_module, source)) is not None:
        name = f"_expanded_{node.name}"
        graph_module.register_buffer(name, value.detach().expand(_shape(node)).contiguous())
        with node.graph.inserting_before(node):
            _replace(node, node.graph.get_attr(name))


def _constant(graph_module: Any, node: fx.Node) -> torch.Tensor | None:
    """Returns what a node computes from stored tensors alone; None where an image has a part in it."""
    if node.op == "get_attr":
        found: torch.Tensor = attrgetter(str(node.target))(graph_module)
        return found
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    values = {one: _constant(graph_module, one) for one in node.all_input_nodes}
    if node.op != "call_function" or random or any(value is None for value in values.values()):
        return None
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    made: torch.Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return made


def _shape(node: fx.Node) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape


def _spread(*shapes: torch.Size) -> torch.Size:
    shape: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return shape


def _joined(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Returns a repeat as concatenations; None where it cannot be."""
    source, counts = node.args
    assert isinstance(source, torch.fx.Node)
    assert isinstance(counts, list | tuple)
    if not all(isinstance(count, int) and count > 0 for count in counts):
        return None
    joined, missing = source, len(counts) - len(_shape(source))
    times = [1] * -missing + list(counts)  # `tile` may name fewer axes than there are
    if missing > 0:
        joined = graph.call_function(aten.reshape.default, (source, [1] * missing + list(_shape(source))))
    for axis, count in enumerate(times):
        if isinstance(count, int) and count > 1:
            joined = graph.call_function(aten.cat.default, ([joined] * count, axis))
    return joined


def _put_between(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Returns a select_scatter as a concatenation."""
    whole, part, axis, place = node.args
    assert isinstance(whole, torch.fx.Node)
    assert isinstance(axis, int)
    assert isinstance(place, int)
    size, axis = _shape(whole)[axis], axis % len(_shape(whole))
    place %= size
    pieces = [graph.call_function(aten.unsqueeze.default, (part, axis))]
    if place:
        pieces.insert(0, graph.call_function(aten.slice.Tensor, (whole, axis, 0, place)))
    if place < size - 1:
        pieces.append(graph.call_function(aten.slice.Tensor, (whole, axis, place + 1, size)))
    return graph.call_function(aten.cat.default, (pieces, axis))


_WRITERS = {aten.repeat.default: _joined, aten.tile.default: _joined, aten.select_scatter.default: _put_between}

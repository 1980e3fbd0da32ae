"""Boolean masks, and sizes that depend on image values: LiteRT's graphs have one size for each tensor.

    y = x; y[mask] = c      becomes   where(mask, c, x), which is the same
    x[mask], nonzero(x)     have as many numbers as values that are true: refused, with operation and module

A mask that covers the leading dimensions only is spread over the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils import _pytree as pytree

from ghostdeploy.convert.module_names import recorded_in
from ghostdeploy.exporters.tflite.coverage import operation_of
from ghostdeploy.exporters.tflite.payload import NotCoveredError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PUT = torch.ops.aten.index_put.default


def refuse_sizes_by_values(program: torch.export.ExportedProgram) -> None:
    """Refuses a program in which the values of an image decide a size.

    Raises:
        NotCoveredError: All such operations are named, with the PyTorch modules they came from.
    """
    found = list(dict.fromkeys(f"{operation} in {module}" for operation, module in _sized_by_values(program)))
    if found:
        raise NotCoveredError(
            f"sizes depend on image values, LiteRT needs the same ones for every image: {'; '.join(found)}; "
            f"keep all values, and select with torch.where(mask, x, 0)"
        )


def _sized_by_values(program: torch.export.ExportedProgram) -> Iterator[tuple[str, str]]:
    known: set[Any] = set()
    for node in program.graph.nodes:
        values = [one for one in pytree.tree_leaves(node.meta.get("val")) if isinstance(one, torch.Tensor)]
        symbols = {symbol for one in values for symbol in free_unbacked_symbols(one)}
        if symbols - known:
            yield operation_of(node), recorded_in(node)
        known |= symbols
        if node.target is _PUT and _mask_of(node) is not None and not _writes_one_value(node):
            yield "index_put by a mask", recorded_in(node)


def choose_by_masks(graph_module: Any) -> Any:
    """Writes `y[mask] = c` as a choice.

    Args:
        graph_module: Of a program; changed in place and returned.
    """
    graph = graph_module.graph
    for node in list(graph.find_nodes(op="call_function", target=_PUT)):
        if (mask := _mask_of(node)) is None or not _writes_one_value(node):
            continue
        value, written = node.args[0], node.args[2]
        shape = (*mask.meta["val"].shape, *[1] * (value.meta["val"].ndim - mask.meta["val"].ndim))
        with graph.inserting_before(node):
            flat = graph.call_function(torch.ops.aten.reshape.default, (written, ()))
            wide = graph.call_function(torch.ops.aten.reshape.default, (mask, shape))
            chosen = graph.call_function(torch.ops.aten.where.self, (wide, flat, value))
        chosen.meta = dict(node.meta)
        node.replace_all_uses_with(chosen)
        graph.erase_node(node)
    graph_module.recompile()
    return graph_module


def _mask_of(node: torch.fx.Node) -> Any:
    """Returns the one mask that an assignment is indexed with, None for other indices."""
    indices = node.args[1]
    assert isinstance(indices, list | tuple)
    mask = indices[0] if len(indices) == 1 else None
    known = mask.meta.get("val") if isinstance(mask, torch.fx.Node) else None
    return mask if isinstance(known, torch.Tensor) and known.dtype == torch.bool else None


def _writes_one_value(node: torch.fx.Node) -> bool:
    written = node.args[2]
    known = written.meta.get("val") if isinstance(written, torch.fx.Node) else None
    added = len(node.args) > 3 and bool(node.args[3])
    return isinstance(known, torch.Tensor) and known.numel() == 1 and not added

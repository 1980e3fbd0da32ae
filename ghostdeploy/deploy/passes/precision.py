"""Running a captured graph in another precision, and noting what each node gave.

A graph holds its precision in two places: tensors, and dtype arguments (`to(x, float32)`). `cast` changes both, so that
a model which casts to float32 halfway is still proven in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree


def cast(module: fx.GraphModule, source: torch.dtype, dest: torch.dtype) -> None:
    """Changes every tensor and every dtype argument of type `source` to `dest`, in place."""
    for parameter in module.parameters():
        if parameter.dtype == source:
            parameter.requires_grad = False
            parameter.data = parameter.data.to(dest)
    for owner in module.modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.dtype == source:
                setattr(owner, name, buffer.to(dest))

    def change(value: Any) -> Any:
        return dest if value is source else value

    for node in module.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, change), map_aggregate(node.kwargs, change)
        if node.meta.get("dtype") is source:
            node.meta["dtype"] = dest
    module.recompile()


def run_noting_shapes(module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Runs the graph, leaves `shape` and `dtype` of each result in its node's meta, and returns the output tensors."""
    with torch.no_grad():
        outputs = _Noting(module).run(*pytree.tree_leaves(inputs))
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


class _Noting(fx.Interpreter):
    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if isinstance(result, Tensor):
            node.meta["shape"], node.meta["dtype"] = tuple(result.shape), result.dtype
        return result

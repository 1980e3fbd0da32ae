"""Largest magnitude of each result of a graph, and its constants, for whoever watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ghostdeploy.convert.program_modules import module_of
from ghostdeploy.deploy.fold.passes.graph import constant, op_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ghostdeploy.deploy.fold.half_range import Watch


def watch_graph(graph: fx.GraphModule, batches: Callable[[], Iterable[NDArray[Any]]], watch: Watch) -> None:
    """Runs a graph on every batch.

    Args:
        graph: One input; not changed.
        batches: Gives its inputs (N, …), of the batch that it takes.
        watch: Is told of every floating-point result and constant.
    """
    for node in graph.graph.nodes:
        if (value := constant(graph, node)) is not None and value.is_floating_point():
            watch.constant(value.numpy(), f"{node.target} of {_reader(node)}")
    run = _Watched(graph, watch)
    with torch.no_grad():
        for batch in batches():
            run.run(torch.from_numpy(batch))


class _Watched(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, watch: Watch) -> None:
        super().__init__(graph)
        self._watch = watch

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if node.op == "call_function" and isinstance(result, Tensor) and result.is_floating_point() and result.numel():
            self._watch.result(_magnitude(result), f"{op_name(node)} of {module_of(node)}")
        return result


def _magnitude(values: Tensor) -> float:
    """Returns the largest finite magnitude."""
    low, high = (float(end) for end in torch.aminmax(values))
    largest = max(-low, high)
    if largest < float("inf"):  # false for NaN too
        return largest
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _reader(node: fx.Node) -> str:
    return module_of(next(iter(node.users), node))

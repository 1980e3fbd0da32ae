"""Largest magnitude of each result of a graph over images, whole or per channel.

    channel_ranges   r[c] = max over images and positions of |y[n, c, …]|
    watch_graph      max |y| of each result and each constant, passed to the watcher

Memory: one batch of activations at a time, and one number per channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ghostdeploy.batches import arrays_of
from ghostdeploy.convert.module_names import recorded_in
from ghostdeploy.deploy.fold.passes.graph import constant, op_name
from ghostdeploy.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.fold.half_range import Watch


def watch_graph(graph: fx.GraphModule, batches: Callable[[], Iterable[Batch]], watch: Watch) -> None:
    """Runs a graph on every batch.

    Args:
        graph: Not changed.
        batches: Gives its inputs (N, …), of the batch that it takes.
        watch: Called with every floating-point result and constant.
    """
    for node in graph.graph.nodes:
        if (value := constant(graph, node)) is not None and value.is_floating_point():
            watch.constant(value.numpy(), f"{node.target} of {_reader(node)}")
    run = _Watched(graph, watch)
    with torch.no_grad():
        for batch in batches():
            run.run(*map(torch.from_numpy, arrays_of(batch)))


class _Watched(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, watch: Watch) -> None:
        super().__init__(graph)
        self._watch = watch

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if node.op == "call_function" and isinstance(result, Tensor) and result.is_floating_point() and result.numel():
            self._watch.result(_magnitude(result), f"{op_name(node)} of {recorded_in(node)}")
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
    return recorded_in(next(iter(node.users), node))


def channel_ranges(module: fx.GraphModule, batches: Iterable[Tensor | tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Runs the graph on every batch and keeps the range of each channel.

    Args:
        module: A graph.
        batches: Its input or inputs, (N, …) of the graph's precision.

    Returns:
        Node name → max |y|, (channels,), for every call and input with a floating-point result that has a
        dimension 1.

    Raises:
        CheckpointError: A call gives NaN or infinity.
        DataError: There is no image.
    """
    watch = _Ranges(module)
    with torch.no_grad():
        for batch in batches:
            watch.run(*(batch if isinstance(batch, tuple) else (batch,)))
    if not watch.ranges:
        raise DataError("the calibration set has no images", hint="give a folder of images with --calib")
    return watch.ranges


class _Ranges(fx.Interpreter):
    """Frees each result after its last reader, as any interpreter does."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ranges: dict[str, Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()  # a mask has no range, and scales nothing
            and result.ndim > 1
            and result.numel()
            and node.op in {"call_function", "placeholder"}
        ):
            found = result.abs().transpose(0, 1).flatten(1).amax(1)
            if not bool(torch.isfinite(found).all()):
                raise CheckpointError(
                    f"{node.name} holds NaN or infinity on a calibration image, expected finite values",
                    hint="check the weights, and that preprocessing matches the training",
                )
            self.ranges[node.name] = torch.maximum(found, self.ranges.get(node.name, found))
        return result

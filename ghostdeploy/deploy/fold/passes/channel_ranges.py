"""Largest magnitude of every channel of every result over calibration images.

    r[c] = max over images and positions of |y[n, c, …]|

Memory: one batch of activations at a time, and one number per channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ghostdeploy.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable


def channel_ranges(module: fx.GraphModule, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Runs the graph on every batch and keeps the range of each channel.

    Args:
        module: A graph with one input.
        batches: Preprocessed images, (N, …) of the graph's precision.

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
            watch.run(batch)
    if not watch.ranges:
        raise DataError("the calibration set holds no image", hint="name a folder of images with --calib")
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
                    hint="check the weights, and that preprocessing is what the model was trained with",
                )
            self.ranges[node.name] = torch.maximum(found, self.ranges.get(node.name, found))
        return result

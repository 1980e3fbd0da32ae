"""What two operands of one operator are to each other.

ONNX lines shapes up at their last axis, native knows pixels and channels. What both read alike:

    (N, C, H, W) ∘ (N, C, H, W)      (N, C, H, W) ∘ (N, C, 1, 1)      (N, C) ∘ (N, C)
    (N, C, H, W) ∘ (1, C, 1, 1) or (C, 1, 1)       (N, C) ∘ (1, C) or (C,)       anything ∘ one value

A (C,) beside (N, C, H, W) would be one value per column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.convert.base import RefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.exporters.native.lowering import Lowering
    from ghostdeploy.exporters.native.steps import Map


def per_channel(to: Lowering, node: Any, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns a constant as one value per channel of the tensor that it meets.

    Args:
        to: Knows the shapes.
        node: The operator.
        name: The tensor.
        values: The constant, of any rank.

    Raises:
        RefusedError: The constant varies within a channel, or makes more channels.
    """
    shape, channels = to.shapes[name], to.maps[name].channels
    sizes = [1] * (len(shape) - values.ndim) + list(values.shape)
    if len(sizes) > len(shape) or values.size not in (1, channels) or values.size != sizes[1]:
        raise RefusedError(f"native takes constants per channel; {node.name} has {list(values.shape)}")
    return np.broadcast_to(values.ravel(), (channels,)).astype(np.float32)


def check_pair(to: Lowering, node: Any) -> None:
    """Checks that two tensors have one shape, or that one has a single value for each channel of the other.

    Raises:
        RefusedError: They are spread over each other in another way.
    """
    shapes = [list(to.shapes[name]) for name in node.input]
    first, other = (to.maps[name] for name in node.input)
    same = len(shapes[0]) == len(shapes[1]) and first.channels == other.channels
    if not same or (shapes[0][2:] != shapes[1][2:] and not first.is_vector and not other.is_vector):
        raise RefusedError(
            f"native takes maps of one shape, or a map and one value per channel; {node.name} broadcasts "
            f"{shapes[0]} and {shapes[1]}"
        )


def factors(to: Lowering, node: Any) -> tuple[Map, Map]:
    """Returns the map of a product's size, and the other: a map, a vector, or what was to be resized to that size."""
    maps = [to.maps[name] for name in node.input]
    for name, data in zip(node.input, reversed(maps), strict=True):
        resize = to.sole(name)
        if resize is not None and resize.kind == "NEAREST" and resize.writes.pixels == data.pixels > 1:
            to.remove(resize)
            return data, resize.reads[0]
    first, other = maps
    return (other, first) if first.is_vector and not other.is_vector else (first, other)

"""Points of an output in pixels, and the length that their errors are shares of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.tasks.landmarks.record import Landmarks, Normalizer

    Float = NDArray[np.float64]


def points(output: NDArray[Any], record: Landmarks, size: tuple[int, int]) -> Float:
    """Returns points (N, K, 2) as x, y in pixels of the network's input.

    Args:
        output: (N, 2K) as x, y, x, y, …, or (N, K, 2).
        record: Their unit.
        size: Height and width of the network's input.

    Raises:
        ValueError: The output has another form.
    """
    if not (output.ndim == 2 and output.shape[1] % 2 == 0) and not (output.ndim == 3 and output.shape[2] == 2):
        raise ValueError(f"points have shape {output.shape}, expected (N, 2K) or (N, K, 2)")
    found = np.asarray(output, np.float64).reshape(len(output), -1, 2)
    if record.unit == "centered":
        found = (found + 1) / 2
    return found if record.unit == "pixels" else found * np.array([size[1], size[0]], float)


def lengths(true: Float, normalizer: Normalizer, sizes: NDArray[Any]) -> Float:
    """Returns d of each image, (N,).

    Args:
        true: (N, K, 2) in pixels of the original image.
        normalizer: Which length.
        sizes: (N, 2) Height and width of each original image.

    Raises:
        ValueError: The normaliser names a point that there is not.
    """
    if (last := max((*normalizer.a, *normalizer.b), default=0)) >= true.shape[1]:
        raise ValueError(f"the normalizer names point {last}, and there are {true.shape[1]}")
    sides: Float = np.asarray(sizes, np.float64) if normalizer.kind == "image" else true.max(axis=1) - true.min(axis=1)
    if normalizer.kind == "points":
        a, b = (true[:, list(group)].mean(axis=1) for group in (normalizer.a, normalizer.b))
        sides = a - b
    if normalizer.kind in ("points", "diagonal"):
        return np.hypot(sides[:, 0], sides[:, 1])
    found: Float = np.sqrt(np.prod(sides, axis=1))
    return found

"""The direction of an embedding: u = e / ‖e‖."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unit(embeddings: NDArray[Any]) -> NDArray[np.float64]:
    """Returns vectors (N, D) of length 1.

    Raises:
        ValueError: One is zero or not finite: it has no direction.
    """
    values = np.asarray(embeddings, np.float64).reshape(len(embeddings), -1)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        index = int(np.flatnonzero(~(np.isfinite(length) & (length > 0)))[0])
        raise ValueError(f"embedding {index} has length {length[index, 0]:g}, so it has no direction")
    found: NDArray[np.float64] = values / length
    return found

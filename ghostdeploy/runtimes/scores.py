"""What the first output of a classifier holds: scores per class, as logits or as probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.manifest import Manifest, Scores

_ROUNDING = 1e-3
"""How far the sum of probabilities may be from 1: that of a thousand in half precision is."""


def kind_of(scores: NDArray[Any]) -> Scores:
    """Returns `probabilities` where every row holds numbers from 0 that sum to 1, else `logits`.

    Args:
        scores: First output for several images, (N, C) of a classifier.
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind != "f" or scores.min() < 0:
        return "logits"
    sums = scores.sum(axis=1, dtype=np.float64)
    return "probabilities" if np.abs(sums - 1).max() <= _ROUNDING else "logits"


def scored_classes(manifest: Manifest) -> int:
    """Returns how many classes the first output has one score for; 0 where it is a map, boxes or anything else."""
    _, *sizes = manifest.outputs[0].shape
    count = manifest.model.num_classes
    return count if sizes and sizes[0] == count and all(size == 1 for size in sizes[1:]) else 0

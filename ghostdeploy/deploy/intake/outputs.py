"""What a reference may answer, whoever computes it: finite numbers, one row per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Arrays

_NUMBERS = "biuf"
"""Kinds of dtype: boolean, integers, float."""


def check_outputs(named: Arrays, count: int, *, hint: str) -> None:
    """Refuses outputs that nothing can be proven on.

    Args:
        named: Outputs by name. The first is what is judged, (N, classes) or (N, …); others may be (N,).
        count: Images, N.
        hint: How to get such outputs from this kind of model.

    Raises:
        CheckpointError: An output holds no numbers, none per image, NaN or infinity.
    """
    for index, (name, array) in enumerate(named.items()):
        if not index and array.shape == (count,) and array.dtype.kind in _NUMBERS:
            raise CheckpointError(
                f"the model's first output {name} is one {array.dtype} per image, expected ({count}, classes) or more "
                f"dimensions",
                hint="return the scores that it was made from, before argmax; a single score as (N, 1): unsqueeze(1)",
            )
        if array.dtype.kind not in _NUMBERS or array.ndim < (1 if index else 2) or len(array) != count:
            shape = f"({count}, …)" if index else f"({count}, classes) or ({count}, …)"
            raise CheckpointError(
                f"the model's output {name} is {array.dtype} of shape {array.shape} for {count} images, expected "
                f"numbers of shape {shape}",
                hint=hint,
            )
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"the model's output {name} holds NaN or infinity on real images",
                hint="check the weights and the preprocessing",
            )

"""From scores to labelled probabilities, in float64.

logits z            p_c = exp(z_c − max z) / Σ_d exp(z_d − max z)
probabilities p     as they are: the network ends in Softmax, and a second one would flatten them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Scores = Literal["logits", "probabilities"]


def require_classes(labels: list[str], sizes: Sequence[int | None], where: str) -> None:
    """Checks that the first output has one score per class.

    Args:
        labels: The names of the classes.
        sizes: The shape of the first output without the batch.
        where: What gives it, for messages.

    Raises:
        BundleError: It is a map, boxes, or anything else.
    """
    if not labels or any(size != 1 for size in sizes[1:]):
        shape = ", ".join(str(size) for size in ("N", *sizes))
        raise BundleError(
            f"{where} is not a classifier: its first output has shape ({shape}), which has no classes",
            hint="read the outputs with infer({name: array}), the first with model(batch)",
        )


def rank(
    values: NDArray[Any], labels: list[str], k: int, *, where: str, scores: Scores = "logits"
) -> list[tuple[str, float]]:
    """Returns the `k` best classes with their probabilities, best first; equal ones in class order.

    Args:
        values: One number per class, shape (C,), also (C, 1, 1).
        labels: C names.
        k: At least 1; more than C gives C.
        where: What gave the values, for messages.
        scores: What the values are.

    Raises:
        BundleError: See `require_classes`; another number of values than labels, a single one, or NaN or infinity.
    """
    require_classes(labels, values.shape, where)
    values = values.astype(np.float64).reshape(-1)
    if values.size != len(labels):
        raise BundleError(f"{where} gave {values.size} {scores}, expected {len(labels)}, one per label")
    if values.size == 1:
        raise BundleError(
            f"{where} gives one number per image, so there are no classes to rank",
            hint="read the number itself: model(pixels)",
        )
    if not np.isfinite(values).all():
        raise BundleError(f"{where} gave NaN or infinite {scores}, expected finite numbers")
    probabilities = values if scores == "probabilities" else _softmax(values)
    best = np.argsort(-values, kind="stable")[:k]
    return [(labels[index], float(probabilities[index])) for index in best]


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())

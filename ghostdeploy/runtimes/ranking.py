"""From logits to labelled probabilities:  p_c = exp(z_c − max z) / Σ_d exp(z_d − max z),  in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rank(logits: NDArray[Any], labels: list[str], k: int, *, where: str) -> list[tuple[str, float]]:
    """Returns the `k` best classes with their probabilities, best first; equal ones in class order.

    Args:
        logits: One number per class, shape (C,).
        labels: C names.
        k: At least 1; more than C gives C.
        where: What gave the logits, for messages.

    Raises:
        BundleError: Another number of logits than labels, or NaN or infinity among them.
    """
    values = logits.astype(np.float64).reshape(-1)
    if values.size != len(labels):
        raise BundleError(f"{where} gave {values.size} logits, expected {len(labels)}, one per label")
    if not np.isfinite(values).all():
        raise BundleError(f"{where} gave NaN or infinite logits, expected finite numbers")
    powers = np.exp(values - values.max())
    probabilities = powers / powers.sum()
    best = np.argsort(-values, kind="stable")[:k]
    return [(labels[index], float(probabilities[index])) for index in best]

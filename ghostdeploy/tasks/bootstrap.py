"""The interval of a drop between two measures of the same images, by a paired bootstrap.

Of n images n are drawn with replacement; image i is then counted w_i times, Σ w_i = n. Both measures get the same
weights, so what makes an image hard for both cancels. Of the drops of R draws

    [ 2.5 % quantile, 97.5 % quantile ]

is the 95 % interval (Efron's percentile interval, 1979). Draws in which the figure does not exist are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROUNDS = 1000


def paired_interval(
    count: int, drop: Callable[[NDArray[np.int64]], float], *, rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % interval of a drop.

    Args:
        count: Images, or whatever is drawn.
        drop: From weights (count,) to the drop between two measures with these weights.
        rounds: Draws.
        seed: Of the draws.

    Returns:
        Lower and upper end; NaN where no draw had a figure.
    """
    rng = np.random.default_rng(seed)
    drops = [drop(np.bincount(rng.integers(0, count, count), minlength=count)) for _ in range(rounds)]
    known = np.array(drops)[np.isfinite(drops)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)

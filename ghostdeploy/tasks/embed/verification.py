"""Verification: do two images show the same one?

With unit vectors u = e / ‖e‖, a pair is called the same where its similarity u·v is above a threshold.

    accuracy    10 folds, each with its share of same and of other pairs: the threshold that is best on nine decides the
                tenth; right answers over all pairs, and the standard deviation of the folds' accuracies
    best        most right answers; of equally good thresholds the one in the middle of the widest gap
    TAR at FAR  share of same pairs above the threshold that lets at most ⌊FAR·n⌋ of n other pairs pass

Pairs are shuffled into folds by a fixed seed, because files are often sorted by label; folds that a file names are
kept, as LFW's. FAR 1e-3 on less than 1,000 other pairs is the luck of one pair: then there is no figure, and a reason.

Two models decide pairs alike where both are on one side of the threshold. Without labels it is Otsu's (1979) of the
float model's similarities: of all cuts into two groups of n₀ and n₁ with means μ₀ and μ₁ the one with the largest
n₀·n₁·(μ₀ − μ₁)².
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy.tasks.agreement import Agreement, agreement
from ghostdeploy.tasks.bootstrap import ROUNDS, paired_interval
from ghostdeploy.tasks.embed.direction import unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float = NDArray[np.float64]
    Bool = NDArray[np.bool_]

FOLDS = 10
FAR = 1e-3
SEED = 0


class Pairs(NamedTuple):
    """Compared pairs."""

    similarity: Float
    """(P,) Cosine, −1 … 1."""
    same: Bool
    """(P,)"""
    fold: NDArray[np.int64] | None = None
    """(P,) Of a file that names folds."""


class Verification(NamedTuple):
    """Figures of a set."""

    accuracy: float
    deviation: float
    """Standard deviation of the folds' accuracies."""
    right: Bool
    """(P,) Pairs that their fold's threshold decides rightly."""
    threshold: float
    """Best on all pairs, for apps."""
    tar: float | None
    """TAR at FAR 1e-3."""
    unmeasured: str | None
    """Why there is no TAR."""
    folds: int


def cosines(a: NDArray[Any], b: NDArray[Any]) -> Float:
    """Returns the cosine of row i of `a` with row i of `b`, both (N, D): (N,)."""
    found: Float = np.einsum("nd,nd->n", unit(a), unit(b))
    return found


def merge(parts: Sequence[Pairs]) -> Pairs:
    """Returns the pairs of a set from those of its parts."""
    folds = [one.fold for one in parts if one.fold is not None]
    return Pairs(
        np.concatenate([one.similarity for one in parts]),
        np.concatenate([one.same for one in parts]),
        np.concatenate(folds) if len(folds) == len(parts) else None,
    )


def verification(pairs: Pairs) -> Verification:
    """Returns the figures.

    Raises:
        ValueError: There are fewer than two same or two other pairs, or a single fold.
    """
    counts = np.bincount(pairs.same.astype(np.int64), minlength=2)
    if counts.min() < 2:
        raise ValueError(f"there are {counts[1]} same and {counts[0]} other pairs, expected two of each at least")
    fold = _folds(pairs.same) if pairs.fold is None else np.unique(pairs.fold, return_inverse=True)[1]
    if not fold.any():
        raise ValueError("all pairs are in one fold, expected two folds at least")
    right = np.zeros(len(fold), bool)
    for number in range(int(fold.max()) + 1):
        here = fold == number
        right[here] = (pairs.similarity[here] > best_threshold(pairs.similarity[~here], pairs.same[~here])) == (
            pairs.same[here]
        )
    each = np.bincount(fold, right) / np.bincount(fold)
    tar, unmeasured = tar_at_far(pairs)
    threshold = best_threshold(pairs.similarity, pairs.same)
    return Verification(float(right.mean()), float(each.std()), right, threshold, tar, unmeasured, len(each))


def _folds(same: Bool) -> NDArray[np.int64]:
    """Deals same and other pairs out to folds, each in random order."""
    fold = np.empty(len(same), np.int64)
    rng = np.random.default_rng(SEED)
    count = min(FOLDS, int(same.sum()), int((~same).sum()))
    for kind in (same, ~same):
        fold[rng.permutation(np.flatnonzero(kind))] = np.arange(kind.sum()) % count
    return fold


def best_threshold(similarity: Float, same: Bool) -> float:
    """Returns the threshold with most right answers on pairs (P,); above it a pair is the same."""
    values, index = np.unique(similarity, return_inverse=True)
    same_at, other_at = (np.bincount(index, kind, minlength=len(values)) for kind in (same, ~same))
    edges = np.concatenate([[values[0] - 1], values, [values[-1] + 1]])
    above = np.concatenate([same_at[::-1].cumsum()[::-1], [0]])  # same pairs above cut k, which is below value k
    below = np.concatenate([[0], other_at.cumsum()])
    right, gap = above + below, np.diff(edges)
    cut = np.lexsort((gap, right))[-1]
    return float((edges[cut] + edges[cut + 1]) / 2)


def tar_at_far(pairs: Pairs, far: float = FAR) -> tuple[float | None, str | None]:
    """Returns the share of same pairs that pass where at most `far` of the others do, or why there is none."""
    others = np.sort(pairs.similarity[~pairs.same])[::-1]
    needed = round(1 / far)
    if len(others) < needed:
        return None, f"not measurable: {len(others)} pairs of different ones, expected {needed} for FAR {far:g}"
    passing = int(far * len(others) + 1e-9)
    return float((pairs.similarity[pairs.same] > others[passing]).mean()), None


def drop_interval(
    found: Verification, reference: Verification, *, rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % interval of the drop of accuracy, reference minus found, on the same pairs.

    Args:
        found: One model's figures.
        reference: The float model's.
        rounds: Draws.
        seed: Of the draws.
    """
    lost = reference.right.astype(float) - found.right

    def drop(weights: NDArray[np.int64]) -> float:
        return float(lost @ weights) / len(lost)

    return paired_interval(len(lost), drop, rounds=rounds, seed=seed)


def pairs_alike(found: NDArray[Any], reference: NDArray[Any], threshold: float | None = None) -> Agreement:
    """Counts the pairs of different images that both models decide alike.

    Args:
        found: (N, D) One model's embeddings.
        reference: (N, D) The float model's.
        threshold: Above it a pair is the same; None is Otsu's.
    """
    upper = np.triu_indices(len(reference), 1)
    one, other = ((vectors @ vectors.T)[upper] for vectors in (unit(found), unit(reference)))
    if threshold is None:
        threshold = otsu(other)
    return agreement((one > threshold) == (other > threshold))


def otsu(values: Float) -> float:
    """Returns the cut that leaves two groups of values (P,) farthest apart; of one value, that value."""
    ordered = np.sort(values)
    below = np.arange(1, len(ordered))
    sums = ordered.cumsum()
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ordered) - below)
    between = below * (len(ordered) - below) * np.square(means[0] - means[1])
    if not between.any():
        return float(ordered[0]) if len(ordered) else 0.0
    cut = int(between.argmax())
    return float(ordered[cut] + ordered[cut + 1]) / 2

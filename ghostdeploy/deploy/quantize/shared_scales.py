"""Tensors that must share one scale, such as all inputs of a Concat and its output, so that Concat stays a copy."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from ghostdeploy.deploy.quantize import ranges as rg

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ghostdeploy.deploy.quantize.recipe import RangeMethod


def merge(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Returns the groups united where they share a member."""
    merged: list[dict[str, None]] = []
    for group in groups:
        joined = dict.fromkeys(group)
        apart = []
        for other in merged:
            if joined.keys() & other.keys():
                joined |= other
            else:
                apart.append(other)
        merged = [*apart, joined]
    return [tuple(group) for group in merged]


def shared_ranges(
    groups: Sequence[Sequence[str]],
    histograms: Mapping[str, rg.Histogram],
    method: RangeMethod,
    *,
    symmetric: bool,
    rectified: Collection[str] = (),
) -> dict[str, tuple[float, float]]:
    """Returns the range of each tensor; tensors that share a scale have that of all their values together.

    Args:
        groups: Tensors that share a scale.
        histograms: By tensor.
        method: Estimator.
        symmetric: See `ranges.choose_range`.
        rectified: Tensors whose range begins at 0 even so: their Relu is gone, rounding does its work.
    """
    found: dict[str, tuple[float, float]] = {}
    for group in merge([*groups, *((name,) for name in histograms)]):
        known = [histograms[name] for name in group if name in histograms]
        if not known:  # moves integers or constants
            continue
        both = reduce(rg.Histogram.merged, known)
        low, high = rg.choose_range(both, method, symmetric=symmetric)
        found |= {name: (max(low, 0.0) if name in rectified else low, high) for name in group}
    return found

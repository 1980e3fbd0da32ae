"""Rewrites pools whose windows engines place or divide differently into a form with one interpretation.

With n values, kernel k, stride s, padding p on both sides and m values out, window i covers [i·s − p, i·s − p + k).

    ceil mode                  same windows as floor mode, where both give m values: ceil mode goes. ONNX Runtime, and
                               what follows from its graph, has no rule that drops a window after the right padding.
    average, ceil mode, p > 0  = k/c_i · average in floor mode of x with zeros around, as many as the windows cover;
                               c_i ≤ k is the part of window i inside n + 2p values, or inside the n where padding does
                               not count. OpenVINO divides by another number, and makes the same of zeros before a
                               pool in ceil mode.
    ceil mode on one axis,     the average as above; the maximum along one kind of axes, then along the other.
    a window less on another
    average with a divisor d   the same with K/d, K the values of a whole window. ONNX has no divisor, and its exporter
                               drops it.
    adaptive maximum           per axis, value i = max over [⌊i·n/m⌋, ⌈(i + 1)·n/m⌉): one pool where m divides n, else
                               a maximum of each slice; LiteRT has no such operator, ONNX only the first kind.

Refused: sizes that are not numbers; an adaptive maximum of more than `MOST_SLICES` values per axis, or whose places
are read.
Source: documentation of `torch.nn.AvgPool2d`, `AdaptiveMaxPool2d`.
"""

from __future__ import annotations

import operator
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import (
    aten,
    calls,
    insert_call,
    insert_constant,
    named_arguments,
    replace,
    shape,
    spread,
)

if TYPE_CHECKING:
    from torch import Tensor, fx

MOST_SLICES = 32
_AVERAGES = {aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2, aten.avg_pool3d.default: 3}
_MAXIMA = {aten.max_pool1d.default: 1, aten.max_pool2d.default: 2, aten.max_pool3d.default: 3}
_ADAPTIVE = {
    aten.adaptive_max_pool1d.default: (1, aten.max_pool1d.default),
    aten.adaptive_max_pool2d.default: (2, aten.max_pool2d.default),
    aten.adaptive_max_pool3d.default: (3, aten.max_pool3d.default),
}


class PlainPooling:
    """Pools in ceil mode, with a divisor, or adaptive → pools that every engine reads alike."""

    name = "PlainPooling"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, *_AVERAGES, *_MAXIMA):
            values = _Pool(node)
            if not values.known:
                continue
            if values.divisor is not None:
                replace(node, _of_full_windows(module, node, values))
            elif values.ceil and values.gives_the_same_in_floor_mode:
                _set(node, "ceil_mode", value=False)
            elif values.ceil and values.average and (values.counts_padding or values.drops_a_window):
                replace(node, _of_full_windows(module, node, values))
            elif values.ceil and values.drops_a_window:
                replace(node, _by_axes(node, values))
            else:
                continue
            sites += 1
        for node in calls(module, *_ADAPTIVE):
            sites += _plain_maximum(node)
        return PassResult(module, sites)


class _Pool:
    """The arguments of a pool, one number per spatial dimension."""

    def __init__(self, node: fx.Node) -> None:
        target: Any = node.target
        found = named_arguments(node)
        self.average = target in _AVERAGES
        self.rank = _AVERAGES[target] if self.average else _MAXIMA[target]
        self.source: fx.Node = found["self"]
        self.kernel = spread(found["kernel_size"], self.rank)
        self.stride = spread(found["stride"], self.rank) if found["stride"] else self.kernel
        self.padding = spread(found["padding"], self.rank)
        self.dilation = spread(found.get("dilation", 1), self.rank)
        self.ceil = bool(found["ceil_mode"])
        self.counts_padding = self.average and bool(found["count_include_pad"]) and any(self.padding)
        self.divisor = found.get("divisor_override")
        self.before, self.after = shape(self.source)[-self.rank :], shape(node)[-self.rank :]

    @property
    def known(self) -> bool:
        """Returns whether all sizes are numbers."""
        return all(isinstance(size, int) for size in (*self.before, *self.after)) and len(self.after) == self.rank

    @property
    def gives_the_same_in_floor_mode(self) -> bool:
        """Returns whether the last window starts where that of floor mode does."""
        return all(self.axes_like_floor_mode)

    @property
    def axes_like_floor_mode(self) -> tuple[bool, ...]:
        """Returns it per axis."""
        return tuple(free // s + 1 == m for free, s, m in zip(self._free, self.stride, self.after, strict=True))

    @property
    def drops_a_window(self) -> bool:
        """Returns whether there is a window less than the sizes alone give, because it would start after the input."""
        return any(-(-free // s) + 1 > m for free, s, m in zip(self._free, self.stride, self.after, strict=True))

    @property
    def _free(self) -> list[int]:
        """Returns how far the window can move inside the padded input."""
        parts = zip(self.before, self.kernel, self.padding, self.dilation, strict=True)
        return [n + 2 * p - d * (k - 1) - 1 for n, k, p, d in parts]


def _of_full_windows(module: fx.GraphModule, node: fx.Node, pool: _Pool) -> fx.Node:
    """Inserts the average of full windows over zeros around, times what corrects its divisor."""
    zeros: list[int] = []
    for place in reversed(range(pool.rank)):
        covered = (pool.after[place] - 1) * pool.stride[place] + pool.kernel[place]
        zeros += [pool.padding[place], max(0, covered - pool.before[place] - pool.padding[place])]
    padded = insert_call(node, aten.constant_pad_nd.default, pool.source, zeros, 0.0) if any(zeros) else pool.source
    pooled = insert_call(node, node.target, padded, list(pool.kernel), list(pool.stride), [0] * pool.rank)
    if pool.divisor is not None:
        factor: Any = prod(pool.kernel) / pool.divisor
    else:
        factor = insert_constant(module, node, _inverse_shares(pool).to(pool.source.meta["dtype"]), "pool_shares")
    return insert_call(node, aten.mul.Tensor, pooled, factor, like=node)


def _inverse_shares(pool: _Pool) -> Tensor:
    """Returns kernel size over the part of it that is counted, (*after)."""
    found = torch.ones((), dtype=torch.float64)
    for n, m, k, s, p in zip(pool.before, pool.after, pool.kernel, pool.stride, pool.padding, strict=True):
        start, ends = torch.arange(m, dtype=torch.float64) * s - p, p if pool.counts_padding else 0
        found = found[..., None] * (k / ((start + k).clamp_max(n + ends) - start.clamp_min(-ends)))
    return found


def _by_axes(node: fx.Node, pool: _Pool) -> fx.Node:
    """Inserts the maximum along the axes that floor mode serves, then along the others."""
    found = pool.source
    for ceil in (False, True):
        chosen = [like_floor is not ceil for like_floor in pool.axes_like_floor_mode]
        size, step, around, apart = (
            [one if own else neutral for one, own in zip(given, chosen, strict=True)]
            for given, neutral in ((pool.kernel, 1), (pool.stride, 1), (pool.padding, 0), (pool.dilation, 1))
        )
        found = insert_call(node, node.target, found, size, step, around, apart, ceil)
    return found


def _set(node: fx.Node, name: str, *, value: bool) -> None:
    """Changes one argument of a call, wherever it stands."""
    target: Any = node.target
    place = [argument.name for argument in target._schema.arguments].index(name)
    if place < len(node.args):
        node.args = (*node.args[:place], value, *node.args[place + 1 :])
    else:
        node.kwargs = {**node.kwargs, name: value}


def _plain_maximum(node: fx.Node) -> bool:
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    readers = list(node.users)
    if any(reader.target is not operator.getitem or reader.args[1] != 0 for reader in readers) or not readers:
        return False
    rank, pool = _ADAPTIVE[node.target]  # type: ignore[index]
    after, before = shape(readers[0])[-rank:], shape(source)[-rank:]
    if not all(isinstance(size, int) for size in (*before, *after)):
        return False
    if not any(n % m for n, m in zip(before, after, strict=True)):
        steps = [n // m for n, m in zip(before, after, strict=True)]
        found = insert_call(readers[0], pool, source, steps, steps, like=readers[0])
    elif max(after) > MOST_SLICES:
        return False
    else:
        found = _by_slices(readers[0], source, before, after)
    for reader in readers:
        replace(reader, found)
    return True


def _by_slices(reader: fx.Node, source: fx.Node, before: tuple[int, ...], after: tuple[int, ...]) -> fx.Node:
    """Inserts the maxima, one axis after the other."""
    found, rank = source, len(shape(source))
    for place, (n, m) in enumerate(zip(before, after, strict=True)):
        axis, parts = rank - len(before) + place, []
        for i in range(m):
            low, high = i * n // m, -(-(i + 1) * n // m)
            part = insert_call(reader, aten.slice.Tensor, found, axis, low, high)
            parts.append(part if high - low == 1 else insert_call(reader, aten.amax.default, part, [axis], True))
        found = insert_call(reader, aten.cat.default, parts, axis)
    return found

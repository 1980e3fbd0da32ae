"""Coupled channels: those of several tensors that must share a property, found by union-find.

Every channel of every result is an element. Calls couple them (`channel_flow`); an element coupled to the pinned one
cannot change. What remains are free components: sets of channels that may change together.

    find(a) = root of a's tree;    join(a, b) makes one tree of two;    a and b share a component where find is equal

Source: Tarjan, "Efficiency of a Good But Not Linear Set Union Algorithm", J. ACM 1975.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.fold.passes.channel_flow import channels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, fx

PINNED = 0
"""The component of all channels that cannot change."""


class Components:
    """Union-find over the numbers below `size`; the smallest number of a component names it."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def __len__(self) -> int:
        return len(self._parent)

    def find(self, element: int) -> int:
        """Returns the component of an element."""
        parent = self._parent
        while parent[element] != element:
            parent[element] = parent[parent[element]]
            element = parent[element]
        return element

    def join(self, one: int, other: int) -> None:
        """Makes one component of two."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low


class CoupledChannels:
    """Components of channels.

    Args:
        nodes: Calls and inputs with tensor results; those without a dimension 1 have no channels.
    """

    def __init__(self, nodes: Iterable[fx.Node]) -> None:
        self._first: dict[fx.Node, int] = {}
        total = PINNED + 1
        for node in nodes:
            if channels(node) and node.op != "get_attr":
                self._first[node] = total
                total += channels(node)
        self._components = Components(total)

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """The calls and inputs that have channels, in order."""
        return tuple(self._first)

    @property
    def size(self) -> int:
        """Components are numbers below it."""
        return len(self._components)

    def components(self, node: fx.Node) -> Tensor:
        """Returns the component of each channel of a result, (channels,) integers, (0,) where it has none."""
        return torch.tensor([self._components.find(element) for element in self._elements(node)], dtype=torch.long)

    def couple(self, result: fx.Node, source: fx.Node, index: Tensor) -> None:
        """Couples channel c of `result` to channel index[c] of `source`; −1 couples nothing.

        Args:
            result: A call.
            source: Where its channels come from.
            index: (channels of `result`,), integers.
        """
        theirs = self._elements(source)
        for element, channel in zip(self._elements(result), index.tolist(), strict=True):
            if channel >= 0:
                self._components.join(element, theirs[channel])

    def pin(self, node: fx.Node, *, where: Tensor | None = None) -> None:
        """Keeps channels of a result as they are: all, or those where (channels,) is true."""
        for channel, element in enumerate(self._elements(node)):
            if where is None or where[channel]:
                self._components.join(element, PINNED)

    def is_pinned(self, node: fx.Node) -> bool:
        """Returns whether no channel of a result can change."""
        return all(self._components.find(element) == PINNED for element in self._elements(node))

    def _elements(self, node: fx.Node) -> range:
        first = self._first.get(node)
        return range(0) if first is None else range(first, first + channels(node))

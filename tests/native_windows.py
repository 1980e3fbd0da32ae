"""Random pieces of maps: windows, resizes, activations, arithmetic, channels, in every form that `native` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from tests.native_networks import Graph

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_SIDE = 40
_SMALLEST = 0.02
"""Of what is divided by."""


class Windows(Graph):
    """A graph whose maps may become any others."""

    def chance(self, share: float) -> bool:
        """Returns true in a share of all cases."""
        return bool(self.random.random() < share)

    def one(self, *choices: Any) -> Any:
        """Returns one of them."""
        return choices[self.random.integers(len(choices))]

    def _in_any_order(self, first: str, second: str) -> list[str]:
        return [first, second] if self.chance(0.5) else [second, first]

    def _geometry(self, *, dilated: bool = True, most: int = 7) -> dict[str, Any]:
        """Returns attributes of a window that gives at least one output, each axis with its own."""
        kernel, strides, dilations, begin, end = [], [], [], [], []
        for side in self.shape[1:]:
            size = int(self.random.integers(1, most + 1))
            dilation = int(self.random.integers(1, 4)) if dilated and self.chance(0.25) else 1
            reach = (size - 1) * dilation + 1
            before, behind = (int(self.random.integers(0, reach)) for _ in range(2))
            if self.chance(0.6):
                before = behind = reach // 2
            missing = max(0, reach - side - before - behind)
            kernel.append(size)
            dilations.append(dilation)
            strides.append(self.one(1, 1, 2, 3))
            begin.append(before + missing)
            end.append(behind)
        return {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": begin + end}

    def _sides_of(self, how: dict[str, Any]) -> tuple[int, ...]:
        return tuple(
            (side + how["pads"][i] + how["pads"][i + 2] - how["dilations"][i] * (how["kernel_shape"][i] - 1) - 1)
            // how["strides"][i]
            + 1
            for i, side in enumerate(self.shape[1:])
        )

    def _windowed(self, how: dict[str, Any], outputs: int, group: int) -> None:
        inputs = [self.name, self.weights(outputs, self.shape[0] // group, *how["kernel_shape"])]
        if self.chance(0.8):
            inputs.append(self.constant(self.random.normal(0, 0.3, outputs)))
        sides = self._sides_of(how)
        made = self.node("Conv", inputs, group=group, **how)
        same = [one for one in self.earlier if one[1] == (outputs, *sides)]
        if same and self.chance(0.5):
            made = self.node("Add", self._in_any_order(made, self.one(*same)[0]))
        self.name, self.shape = self.activated(made), (outputs, *sides)

    def any_depthwise(self) -> None:
        """Any window, each axis with its own stride, dilation and padding."""
        self._windowed(self._geometry(), self.shape[0], self.shape[0])

    def usual_depthwise(self) -> None:
        """Windows, strides and paddings for which kernels have ways of their own, and others of these sizes."""
        sides = self.one((3, 3), (5, 5), (1, 5), (5, 1))
        stride = self.one(1, 2) if sides[0] == sides[1] else self.one(1, 1, 1, 2)
        pads = [self.one(*[(side // 2,) * 2] * 3, (0, 0), (0, side // 2), (side - 1, 0)) for side in sides]
        if any(there + sum(pad) < side for there, pad, side in zip(self.shape[1:], pads, sides, strict=True)):
            return
        how = {"kernel_shape": list(sides), "strides": [stride] * 2, "dilations": [1, 1]}
        how["pads"] = [pad[0] for pad in pads] + [pad[1] for pad in pads]
        self._windowed(how, self.shape[0], self.shape[0])

    def any_dense(self) -> None:
        """Any window, any number of groups, several outputs for each input of a group."""
        groups = [count for count in range(1, self.shape[0] + 1) if self.shape[0] % count == 0]
        group = self.one(*groups)
        self._windowed(self._geometry(most=4), group * int(self.random.integers(1, max(2, 24 // group))), group)

    def any_pool(self) -> None:
        kind = self.one("AveragePool", "MaxPool")
        how = self._geometry(dilated=kind == "MaxPool", most=4)
        pads = [min(pad, (size - 1) // 2) for pad, size in zip(how["pads"], how["kernel_shape"] * 2, strict=True)]
        if kind == "AveragePool":
            del how["dilations"]
            pads = [0] * 4 if self.chance(0.4) else pads
            how["count_include_pad"] = int(any(pads))
        how["pads"] = pads
        sides = self._sides_of({"dilations": [1, 1], **how})
        if min(sides) > 0:
            self.name, self.shape = self.node(kind, [self.name], **how), (self.shape[0], *sides)

    def any_resize(self) -> None:
        """To the nearest pixel below: by sizes, or by factors that are whole or give whole sides."""
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if self.chance(0.5):
            sides = [int(self.random.integers(1, min(2 * side + 2, _MOST_SIDE))) for side in self.shape[1:]]
            sizes = self.constant([1, self.shape[0], *sides], np.int64)
            self.name = self.node("Resize", [self.name, "", "", sizes], **how)
        else:
            factors = [
                self.one(*(one for one in (0.5, 1, 2, 3) if side * one == int(side * one) <= _MOST_SIDE or one == 1))
                for side in self.shape[1:]
            ]
            sides = [int(side * factor) for side, factor in zip(self.shape[1:], factors, strict=True)]
            self.name = self.node("Resize", [self.name, "", self.constant([1, 1, *factors])], **how)
        self.shape = (self.shape[0], *sides)

    def any_attention(self) -> None:
        """A gate computed on a smaller map, and resized: what GhostNetV2 has. Others may read the map before."""
        before, sides = (self.name, self.shape), self.shape[1:]
        if min(sides) < 2:
            return
        self.name = self.node("AveragePool", [self.name], kernel_shape=[2, 2], strides=[2, 2])
        self.shape = (self.shape[0], sides[0] // 2, sides[1] // 2)
        self.usual_depthwise() if self.chance(0.7) else self.pointwise()
        count = self.shape[0]
        gate = self.node("Sigmoid", [self.name])
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        large = self.node("Resize", [gate, "", "", self.constant([1, count, *sides], np.int64)], **how)
        if count != before[1][0]:
            made, _ = self.convolve(before[0], before[1], count, (1, 1))
            before = (made, (count, *sides))
        self.name, self.shape = self.node("Mul", self._in_any_order(before[0], large)), (count, *sides)
        if self.chance(0.3):
            self.earlier.append(before)

    # Activations and arithmetic

    def any_activation(self) -> None:
        self.name = self.rare_activation(self.name)

    def rare_activation(self, name: str) -> str:
        """Forms of activations that `activated` has not."""
        low, high = self.constant(self.random.normal(-0.5, 0.2)), self.constant(self.random.normal(0.7, 0.2))
        made: list[Callable[[], str]] = [
            lambda: self.node("Clip", [name, low]),
            lambda: self.node("Clip", [name, "", high]),
            lambda: self.node("HardSigmoid", [name]),
            lambda: self.node("HardSigmoid", [name], alpha=float(self.random.normal(0.3, 0.1)), beta=0.4),
            lambda: self.node("LeakyRelu", [name]),
            lambda: self.node("LeakyRelu", [name], alpha=float(self.random.normal(0, 0.5))),
            lambda: self.node("Max", [name, self.constant(0)]),
            lambda: self.node("Mul", self._in_any_order(name, self.node("Sigmoid", [name]))),
            lambda: self.node("HardSwish", [name]),
        ]
        return str(self.one(*made)())

    def constants_of_any_form(self) -> None:
        """Sums, differences, products and quotients with one value, or one per channel."""
        for _ in range(int(self.random.integers(1, 4))):
            kind, count = self.one("Add", "Sub", "Mul", "Div"), self.shape[0]
            shape = self.one((), (1,), (1, 1, 1, 1), (count, 1, 1), (1, count, 1, 1))
            values = self.random.normal(1 if kind in ("Mul", "Div") else 0, 0.2, shape)
            values = np.where(np.abs(values) < _SMALLEST, 1, values) if kind == "Div" else values
            pair = [self.name, self.constant(values)]
            self.name = self.node(kind, pair if kind in ("Sub", "Div") or self.chance(0.7) else pair[::-1])

    def twice(self) -> None:
        """A map with itself."""
        kind = self.one("Add", "Mul", "Concat")
        self.name = self.node(kind, [self.name, self.name], **({"axis": 1} if kind == "Concat" else {}))
        self.shape = (self.shape[0] * (2 if kind == "Concat" else 1), *self.shape[1:])

    # Channels

    def parts(self) -> None:
        """A split whose parts go different ways and come together again, in any order."""
        count = self.shape[0]
        if count < 3:
            return
        first = int(self.random.integers(1, count - 1))
        second = int(self.random.integers(first + 1, count))
        sizes = [first, second - first, count - second]
        names = [f"t{len(self.nodes)}_{place}" for place in range(3)]
        splits = self.constant(sizes, np.int64)
        self.nodes.append(helper.make_node("Split", [self.name, splits], names, name=f"n{len(self.nodes)}", axis=1))
        found = list(zip(names, sizes, strict=True))
        for place, (name, size) in enumerate(found):
            if self.chance(0.5):
                made, shape = self.convolve(name, (size, *self.shape[1:]), size + int(self.random.integers(3)), (1, 1))
                found[place] = (self.activated(made), shape[0])
            elif self.chance(0.4):
                found[place] = (
                    self.activated(self.convolve(name, (size, *self.shape[1:]), size, (3, 3), group=size)[0]),
                    size,
                )
        self.earlier += [(name, (size, *self.shape[1:])) for name, size in found]
        kept = [found[place] for place in self.random.permutation(3)[: int(self.random.integers(2, 4))]]
        self.name = self.node("Concat", [name for name, _ in kept], axis=self.one(1, -3))
        self.shape = (sum(size for _, size in kept), *self.shape[1:])

    def cut_from_behind(self) -> None:
        """A slice with ends that count from behind, or lie beyond."""
        count = self.shape[0]
        kept = int(self.random.integers(1, count + 1))
        start, end = self.one((-kept, 1 << 40), (-count - 3, kept), (count - kept, count + 9), (0, kept))
        bounds = [self.constant([value], np.int64) for value in (start, end, 1)]
        self.name = self.node("Slice", [self.name, *bounds])
        self.shape = (kept, *self.shape[1:])

"""The spellings of the hard sigmoid become one call.

    hardsigmoid(x) = min(max(x + 3, 0), 6) / 6
                   = relu6(x + 3) / 6 = relu6(x + 3) · (1/6) = clamp(x + 3, 0, 6) / 6 = clamp(x/6 + 1/2, 0, 1)
    hardswish(x)   = x · hardsigmoid(x) = x · relu6(x + 3) / 6

Runtimes have one kernel for the call and four for the spelling. Refused: constants that differ (a factor 0.1667 is not
1/6: the results would differ in the fifth digit), division with rounding, and clamp(x, 0, 1), the gate of TensorFlow's
and PaddleClas's GhostNet, which is another function. Source: Howard et al., "Searching for MobileNetV3", ICCV 2019,
section 5.2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import fx

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import (
    aten,
    calls,
    insert_call,
    named_arguments,
    op_name,
    replace,
    scalar,
    sole_user,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Clipped = tuple[fx.Node, float, float]
"""What is clipped, and the bounds."""


class CanonicalizeHardSigmoid:
    """Rewrites the spellings of hard sigmoid and hard swish."""

    name = "CanonicalizeHardSigmoid"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module):
            argument, target = gate(module, node), aten.hardsigmoid.default
            if argument is None:
                argument, target = swish(module, node), aten.hardswish.default
            if argument is not None:
                replace(node, insert_call(node, target, argument, like=node))
                sites += 1
        return PassResult(module, sites)


def gate(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Returns x where `node` spells hardsigmoid(x)."""
    for inner, factor in _products(module, node):
        clipped = _clipped(module, inner)
        if clipped is not None and _equal(factor, 1 / 6) and clipped[1:] == (0.0, 6.0):
            return _minus(module, clipped[0], 3.0)
    clipped = _clipped(module, node)
    if clipped is not None and clipped[1:] == (0.0, 1.0):
        sloped = _minus(module, clipped[0], 0.5)
        return next((x for x, factor in _products(module, sloped) if _equal(factor, 1 / 6)), None)
    return None


def swish(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Returns x where `node` is x · hardsigmoid(x), in either order, or x · relu6(x + 3) / 6."""
    for x, other in _factors(node):
        if op_name(other) == "hardsigmoid" and other.args[0] is x and sole_user(other):
            return x
    for inner, factor in _products(module, node):
        if not _equal(factor, 1 / 6) or not sole_user(inner):
            continue
        for x, other in _factors(inner):
            clipped = _clipped(module, other)
            if clipped is not None and clipped[1:] == (0.0, 6.0) and _minus(module, clipped[0], 3.0) is x:
                return x
    return None


def _factors(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    if op_name(node) == "mul" and all(isinstance(argument, fx.Node) for argument in node.args[:2]):
        first, second = node.args[:2]
        assert isinstance(first, fx.Node)
        assert isinstance(second, fx.Node)
        yield first, second
        yield second, first


def _products(module: fx.GraphModule, node: object) -> Iterator[tuple[fx.Node, float]]:
    """Yields (x, c) for each reading of `node` as x · c with a number c."""
    if not isinstance(node, fx.Node) or op_name(node) not in ("mul", "div"):
        return
    values = named_arguments(node)
    for x, number in ((values["self"], values["other"]), (values["other"], values["self"])):
        c = scalar(module, number)
        if not isinstance(x, fx.Node) or c is None:
            continue
        if op_name(node) == "mul":
            yield x, c
        elif x is values["self"] and c != 0 and values.get("rounding_mode") is None:
            yield x, 1 / c


def _minus(module: fx.GraphModule, node: fx.Node, number: float) -> fx.Node | None:
    """Returns x where `node` is x + number."""
    if op_name(node) != "add":
        return None
    values = named_arguments(node)
    if values["alpha"] != 1:
        return None
    for x, other in ((values["self"], values["other"]), (values["other"], values["self"])):
        if isinstance(x, fx.Node) and scalar(module, other) == number:
            return x
    return None


def _clipped(module: fx.GraphModule, node: fx.Node) -> Clipped | None:
    """Reads one clipping call, or a lower bound followed by an upper one."""
    name = op_name(node)
    if name in ("relu6", "hardtanh", "clamp"):
        values = named_arguments(node)
        low = 0.0 if name == "relu6" else values.get("min_val", values.get("min"))
        high = 6.0 if name == "relu6" else values.get("max_val", values.get("max"))
        bounds = scalar(module, low), scalar(module, high)
        if bounds[0] is not None and bounds[1] is not None:
            return values["self"], bounds[0], bounds[1]
    lower = _lower_bound(module, node.args[0]) if _upper_bound(module, node) is not None else None
    high = _upper_bound(module, node)
    return None if lower is None or high is None else (lower[0], lower[1], high)


def _upper_bound(module: fx.GraphModule, node: fx.Node) -> float | None:
    name = op_name(node)
    values = named_arguments(node) if name in ("clamp", "clamp_max") else {}
    return scalar(module, values.get("max")) if values.get("min") is None else None


def _lower_bound(module: fx.GraphModule, node: object) -> tuple[fx.Node, float] | None:
    name = op_name(node)
    if not isinstance(node, fx.Node) or name not in ("relu", "clamp", "clamp_min"):
        return None
    values = named_arguments(node)
    low = 0.0 if name == "relu" else scalar(module, values["min"])
    return None if low is None or values.get("max") is not None else (values["self"], low)


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-12)

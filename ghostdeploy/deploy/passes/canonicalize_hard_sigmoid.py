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

import torch
from torch import fx

from ghostdeploy.deploy.passes import graph
from ghostdeploy.deploy.passes.base import PassResult

if TYPE_CHECKING:
    from collections.abc import Iterator

Clipped = tuple[fx.Node, float, float]
"""What is clipped, and the bounds."""


class CanonicalizeHardSigmoid:
    """Rewrites the spellings of hard sigmoid and hard swish."""

    name = "canonicalize-hard-sigmoid"

    def run(self, gm: fx.GraphModule) -> PassResult:
        """Rewrites `gm`, see `Pass.run`."""
        aten = torch.ops.aten
        sites = 0
        for node in list(gm.graph.nodes):
            argument = gate(gm, node)
            target = aten.hardsigmoid.default
            if argument is None:
                argument, target = swish(gm, node), aten.hardswish.default
            if argument is not None:
                with gm.graph.inserting_before(node):
                    graph.replace(node, graph.call(gm, target, [argument]))
                sites += 1
        return PassResult(gm, sites)


def gate(gm: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Returns x where `node` spells hardsigmoid(x)."""
    for inner, factor in _products(gm, node):
        clipped = _clipped(gm, inner)
        if clipped is not None and _equal(factor, 1 / 6) and clipped[1:] == (0.0, 6.0):
            return _minus(gm, clipped[0], 3.0)
    clipped = _clipped(gm, node)
    if clipped is not None and clipped[1:] == (0.0, 1.0):
        sloped = _minus(gm, clipped[0], 0.5)
        return next((x for x, factor in _products(gm, sloped) if _equal(factor, 1 / 6)), None)
    return None


def swish(gm: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Returns x where `node` is x · hardsigmoid(x), in either order, or x · relu6(x + 3) / 6."""
    for x, other in _factors(node):
        if graph.op(other) == "hardsigmoid" and other.args[0] is x and len(other.users) == 1:
            return x
    for inner, factor in _products(gm, node):
        if not _equal(factor, 1 / 6) or len(inner.users) != 1:
            continue
        for x, other in _factors(inner):
            clipped = _clipped(gm, other)
            if clipped is not None and clipped[1:] == (0.0, 6.0) and _minus(gm, clipped[0], 3.0) is x:
                return x
    return None


def _factors(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    if graph.op(node) == "mul" and all(isinstance(argument, fx.Node) for argument in node.args[:2]):
        first, second = node.args[:2]
        assert isinstance(first, fx.Node)
        assert isinstance(second, fx.Node)
        yield first, second
        yield second, first


def _products(gm: fx.GraphModule, node: object) -> Iterator[tuple[fx.Node, float]]:
    """Yields (x, c) for each reading of `node` as x · c with a number c."""
    if not isinstance(node, fx.Node) or graph.op(node) not in ("mul", "div"):
        return
    values = graph.arguments(node)
    for x, number in ((values["self"], values["other"]), (values["other"], values["self"])):
        c = graph.scalar(gm, number)
        if not isinstance(x, fx.Node) or c is None:
            continue
        if graph.op(node) == "mul":
            yield x, c
        elif x is values["self"] and c != 0 and values.get("rounding_mode") is None:
            yield x, 1 / c


def _minus(gm: fx.GraphModule, node: fx.Node, number: float) -> fx.Node | None:
    """Returns x where `node` is x + number."""
    if graph.op(node) != "add":
        return None
    values = graph.arguments(node)
    if values["alpha"] != 1:
        return None
    for x, other in ((values["self"], values["other"]), (values["other"], values["self"])):
        if isinstance(x, fx.Node) and graph.scalar(gm, other) == number:
            return x
    return None


def _clipped(gm: fx.GraphModule, node: fx.Node) -> Clipped | None:
    """Reads one clipping call, or a lower bound followed by an upper one."""
    name = graph.op(node)
    if name in ("relu6", "hardtanh", "clamp"):
        values = graph.arguments(node)
        low = 0.0 if name == "relu6" else values.get("min_val", values.get("min"))
        high = 6.0 if name == "relu6" else values.get("max_val", values.get("max"))
        bounds = graph.scalar(gm, low), graph.scalar(gm, high)
        if bounds[0] is not None and bounds[1] is not None:
            return values["self"], bounds[0], bounds[1]
    lower = _lower_bound(gm, node.args[0]) if _upper_bound(gm, node) is not None else None
    high = _upper_bound(gm, node)
    return None if lower is None or high is None else (lower[0], lower[1], high)


def _upper_bound(gm: fx.GraphModule, node: fx.Node) -> float | None:
    name = graph.op(node)
    values = graph.arguments(node) if name in ("clamp", "clamp_max") else {}
    return graph.scalar(gm, values.get("max")) if values.get("min") is None else None


def _lower_bound(gm: fx.GraphModule, node: object) -> tuple[fx.Node, float] | None:
    name = graph.op(node)
    if not isinstance(node, fx.Node) or name not in ("relu", "clamp", "clamp_min"):
        return None
    values = graph.arguments(node)
    low = 0.0 if name == "relu" else graph.scalar(gm, values["min"])
    return None if low is None or values.get("max") is not None else (values["self"], low)


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-12)

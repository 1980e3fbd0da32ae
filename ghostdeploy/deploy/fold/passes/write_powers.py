"""Powers with a small constant exponent become the arithmetic they stand for.

    x² = x·x      x³ = x·x·x      x^½ = √x      x^−½ = 1/√x      x^−1 = 1/x      x^−2 = 1/(x·x)

That is how PyTorch computes them. LiteRT's converter has no power of five dimensions (the decoder of YOLOv5 squares
those), and its kernel for the others calls the general function for each value.
Refused: integers, whose powers overflow in ways of their own; other exponents.
Source: `pow_tensor_scalar_optimized_kernel` of PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import aten, calls, insert_call, replace, scalar

if TYPE_CHECKING:
    from torch import fx

_POWERS = frozenset({aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.square.default})


class WritePowers:
    """Power → products, square root or reciprocal."""

    name = "WritePowers"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, *_POWERS):
            source: fx.Node = node.args[0]  # type: ignore[assignment]
            exponent = 2.0 if node.target is aten.square.default else scalar(module, node.args[1])
            same = node.meta.get("dtype") is source.meta.get("dtype")
            if exponent is None or exponent not in _WRITERS or not same or not node.meta["dtype"].is_floating_point:
                continue
            replace(node, _WRITERS[exponent](node, source))
            sites += 1
        return PassResult(module, sites)


def _square(node: fx.Node, source: fx.Node) -> fx.Node:
    return insert_call(node, aten.mul.Tensor, source, source, like=node)


def _cube(node: fx.Node, source: fx.Node) -> fx.Node:
    return insert_call(node, aten.mul.Tensor, _square(node, source), source, like=node)


def _root(node: fx.Node, source: fx.Node) -> fx.Node:
    return insert_call(node, aten.sqrt.default, source, like=node)


def _inverse(node: fx.Node, source: fx.Node) -> fx.Node:
    return insert_call(node, aten.reciprocal.default, source, like=node)


def _inverse_root(node: fx.Node, source: fx.Node) -> fx.Node:
    return insert_call(node, aten.rsqrt.default, source, like=node)


def _inverse_square(node: fx.Node, source: fx.Node) -> fx.Node:
    return _inverse(node, _square(node, source))


_WRITERS = {
    2.0: _square,
    3.0: _cube,
    0.5: _root,
    -0.5: _inverse_root,
    -1.0: _inverse,
    -2.0: _inverse_square,
}
"""What an exponent stands for; x¹ is left to the engines, which drop it."""

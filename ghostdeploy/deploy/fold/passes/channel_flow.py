"""Which channel of its arguments each channel of a call's result comes from.

A pass that changes channels (scales them, adds some) must know how far a change travels. A call falls in one of four
classes, with f the change of scale of a channel (f > 0) and σ the index map from a result's channels to a source's:

    homogeneous    y[c] = g(x[σ(c)], …),  g(f·x, f·…) = f·g(x, …)   ReLU, sum, concat, slice, pooling, resize
    elementwise    y[c] = g(x[σ(c)], …),  any g                     sigmoid, clamp, GELU, sum with a constant
    product        y[c] = x[σ(c)] · g[σ'(c)]                        gates
    opaque         everything else                                  softmax, permute, unknown calls

Convolutions and linear layers mix channels through constant weights; they are not described here, the pass that changes
channels rewrites their weights (`absorbing_layer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, fx

from ghostdeploy.deploy.fold.passes.graph import Linear, constant, named_arguments, op_name, read_linear, shape

if TYPE_CHECKING:
    from collections.abc import Callable

Law = Literal["homogeneous", "elementwise", "product"]

_HOMOGENEOUS = frozenset(
    {"relu", "leaky_relu", "abs", "neg", "alias", "clone", "contiguous", "detach", "dropout"}
    | {"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"}
    | {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d"}
    | {"upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"}
    | {"upsample_linear1d", "upsample_bicubic2d"}
)
_ELEMENTWISE = frozenset(
    {
        "sigmoid",
        "hardsigmoid",
        "hardswish",
        "silu",
        "gelu",
        "tanh",
        "hardtanh",
        "clamp",
        "relu6",
        "elu",
        "mish",
        "softplus",
    }
)
_SUMS = frozenset({"add", "sub", "maximum", "minimum"})
_PRODUCTS = frozenset({"mul", "div"})
_REDUCTIONS = frozenset({"mean", "sum", "amax", "amin"})
_SHAPES = frozenset({"flatten", "reshape", "squeeze", "unsqueeze"})


@dataclass(frozen=True, slots=True)
class Flow:
    """Where the channels (dimension 1) of a result come from."""

    law: Law
    sources: tuple[tuple[fx.Node, Tensor], ...]
    """Each source with, per channel of the result, the channel of the source, −1 where this source gives none."""


def channels(node: object) -> int:
    """Returns the size of dimension 1 of a call's or input's result, 0 where there is none."""
    sizes = shape(node) if isinstance(node, fx.Node) else ()
    return sizes[1] if len(sizes) > 1 else 0


def absorbing_layer(module: fx.GraphModule, node: fx.Node) -> Linear | None:
    """Returns the layer whose weights can take changes of its input and output channels, None for anything else."""
    linear = read_linear(module, node)
    if linear is None or linear.source.op == "get_attr" or len(shape(node)) != linear.weight.ndim:
        return None  # of a constant; without a batch, or linear over (N, L, C): dimension 1 holds no channels
    return linear


def read_flow(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    """Returns where the channels of a call's result come from, None for an opaque call.

    Args:
        module: The graph; nodes carry the shapes of a run.
        node: A call that is neither a convolution nor a linear layer.
    """
    name = op_name(node)
    if not channels(node):
        return None
    reader = next((reader for names, reader in _READERS if name in names), None)
    flow = None if reader is None else reader(module, node)
    if flow is None or any(source.op == "get_attr" for source, _ in flow.sources):
        return None
    return flow


def _unary(law: Law) -> Callable[[fx.GraphModule, fx.Node], Flow | None]:
    def read(module: fx.GraphModule, node: fx.Node) -> Flow | None:
        return _same(node, node.args[0], law)

    return read


def _same(node: fx.Node, source: Any, law: Law = "homogeneous") -> Flow | None:
    """Channel c from channel c."""
    if not isinstance(source, fx.Node) or channels(source) != channels(node):
        return None
    return Flow(law, ((source, torch.arange(channels(node))),))


def _reduction(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    """Over anything but batch and channels."""
    arguments, rank = named_arguments(node), len(shape(node.args[0]))
    dims = arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    if not dims or any(dim % rank < 2 for dim in dims):
        return None
    return _same(node, node.args[0])


def _sum(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    """Of two tensors; a constant addend makes it elementwise only."""
    left, right = node.args[0], node.args[1]
    if constant_operand(module, right):
        return _broadcast(node, (left,), "elementwise")
    if constant_operand(module, left):
        return _broadcast(node, (right,), "elementwise")
    return _broadcast(node, (left, right), "homogeneous")


def _product(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    """Of two tensors; a constant factor does not change, and scale passes through."""
    left, right = node.args[0], node.args[1]
    if named_arguments(node).get("rounding_mode"):
        return None
    if constant_operand(module, right):
        return _broadcast(node, (left,), "homogeneous")
    if op_name(node) != "mul":
        return None  # a divisor would need the inverse
    if constant_operand(module, left):
        return _broadcast(node, (right,), "homogeneous")
    return _broadcast(node, (left, right), "product")


def constant_operand(module: fx.GraphModule, value: object) -> bool:
    """Returns whether an argument is a number or a constant tensor."""
    return isinstance(value, int | float) or constant(module, value) is not None


def _broadcast(node: fx.Node, operands: tuple[Any, ...], law: Law) -> Flow | None:
    """One channel serves all channels; other ranks would move dimension 1."""
    count, sources = channels(node), []
    for operand in operands:
        if not isinstance(operand, fx.Node) or len(shape(operand)) != len(shape(node)):
            return None
        if channels(operand) not in (1, count):
            return None
        index = torch.arange(count) if channels(operand) == count else torch.zeros(count, dtype=torch.long)
        sources.append((operand, index))
    return Flow(law, tuple(sources))


def _concat(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    arguments, rank = named_arguments(node), len(shape(node))
    parts, along = list(arguments["tensors"]), arguments["dim"] % rank == 1
    if any(len(shape(part)) != rank for part in parts):
        return None
    sources, start = [], 0
    for part in parts:
        count = channels(part)
        index = torch.full((channels(node),), -1)
        first = start if along else 0
        index[first : first + count] = torch.arange(count)
        start += count
        sources.append((part, index))
    return Flow("homogeneous", tuple(sources))


def _slice(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    arguments = named_arguments(node)
    source, rank = arguments["self"], len(shape(arguments["self"]))
    if arguments["dim"] % rank != 1:
        return _same(node, source)
    taken = torch.arange(channels(source))[arguments["start"] : arguments["end"] : arguments["step"]]
    return Flow("homogeneous", ((source, taken),)) if len(taken) == channels(node) else None


def _reshape(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    """(N, C, …) → (N, C, …), or (N, C, H, W) → (N, C·H·W), where channel c becomes H·W neighbours."""
    source = node.args[0]
    before, after = shape(source), shape(node)
    if len(before) < 2 or before[0] != after[0] or prod(before[1:]) != prod(after[1:]):
        return None
    if before[1] == after[1]:
        return _same(node, source)
    if len(after) == 2 and isinstance(source, fx.Node):
        index = torch.arange(before[1]).repeat_interleave(prod(before[2:]))
        return Flow("homogeneous", ((source, index),))
    return None


def _prelu(module: fx.GraphModule, node: fx.Node) -> Flow | None:
    slope = constant(module, node.args[1])
    return None if slope is None or slope.numel() not in (1, channels(node)) else _same(node, node.args[0])


_READERS: tuple[tuple[frozenset[str], Callable[[fx.GraphModule, fx.Node], Flow | None]], ...] = (
    (_HOMOGENEOUS, _unary("homogeneous")),
    (_ELEMENTWISE, _unary("elementwise")),
    (_SUMS, _sum),
    (_PRODUCTS, _product),
    (_REDUCTIONS, _reduction),
    (frozenset({"cat"}), _concat),
    (frozenset({"slice"}), _slice),
    (_SHAPES, _reshape),
    (frozenset({"prelu"}), _prelu),
)

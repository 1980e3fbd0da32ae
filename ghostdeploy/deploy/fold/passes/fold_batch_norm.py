"""Fold inference BatchNorm into the linear layer next to it.

    BN(y) = s·y + t   with   s = γ / √(σ² + ε),   t = β − μ·s      (per channel; Ioffe and Szegedy 2015)

    after    s·(W∗x + b) + t            =  (s·W)∗x + (s·b + t)
    before   W∗(s·x + t) + b            =  (W·s)∗x + (b + Σ W·t)
    across   BN(concat(W₁∗x, W₂∗y))     =  concat of both, each with its share of s and t
    else     BN(x)                      =  x·s + t, two constant operations, so that no BatchNorm is left

Limits: *after* and *across* need the layer to have no other reader, or the other reader would see the change. *before*
needs t = 0 or no zero padding: padding inserts zeros, which BN would have made t. It also needs BN to have no other
reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import (
    Linear,
    aten,
    calls,
    constant,
    insert_call,
    insert_constant,
    named_arguments,
    read_linear,
    reconnect,
    replace,
    rewrite_linear,
    shape,
    sole_user,
)

if TYPE_CHECKING:
    from torch import Tensor, fx

_PLAIN = (aten.batch_norm.default,)
_NATIVE = (aten._native_batch_norm_legit_no_training.default, aten.native_batch_norm.default)


class ScaleShift(NamedTuple):
    """BN as y = scale·x + shift, both (channels,)."""

    scale: Tensor
    shift: Tensor


class FoldBatchNorm:
    """BatchNorm next to a linear layer → the linear layer."""

    name = "FoldBatchNorm"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring; forms are tried in its order."""
        sites = 0
        for node in calls(module, *_PLAIN, *_NATIVE):
            found = read_batch_norm(module, node)
            if found is None:
                continue
            form, result = found, value_of(node)
            if result is None:
                continue
            source: fx.Node = named_arguments(node)["input"]
            if fold_after(module, source, form) or fold_across(module, source, form):
                replace(result, source)
            elif fold_before(module, result, form):
                reconnect(result, source)
            else:
                replace(result, lower(module, result, source, form))
            sites += 1
        return PassResult(module, sites)


def read_batch_norm(module: fx.GraphModule, node: fx.Node) -> ScaleShift | None:
    """Returns scale and shift of an inference BatchNorm, None if it normalises by the batch's own statistics."""
    arguments = named_arguments(node)
    if arguments.get("training"):
        return None
    mean, variance = constant(module, arguments["running_mean"]), constant(module, arguments["running_var"])
    if mean is None or variance is None:
        return None
    gamma, beta = constant(module, arguments["weight"]), constant(module, arguments["bias"])
    if any(tensor is None and arguments[key] is not None for key, tensor in (("weight", gamma), ("bias", beta))):
        return None  # computed by the graph
    scale = (variance + arguments["eps"]).rsqrt()
    scale = scale if gamma is None else gamma * scale
    return ScaleShift(scale, -mean * scale if beta is None else beta - mean * scale)


def value_of(node: fx.Node) -> fx.Node | None:
    """Returns the node that holds the normalised tensor: the call itself, or item 0 of a native call."""
    if node.target in _PLAIN:
        return node
    items = [user for user in node.users if user.args[1] == 0]
    return items[0] if len(items) == len(node.users) == 1 else None


def fold_after(module: fx.GraphModule, source: fx.Node, form: ScaleShift) -> bool:
    """s·(W∗x + b) + t → one layer."""
    linear = read_linear(module, source)
    if linear is None or not sole_user(source) or len(shape(source)) < 2:
        return False
    if linear.rank == 0 and len(shape(source)) != 2:
        return False  # (N, L, C): BatchNorm's channel is dimension 1, the layer's the last
    rewrite_linear(module, linear, scale_outputs(linear, form.scale), form.scale * linear.bias_or_zero() + form.shift)
    return True


def fold_across(module: fx.GraphModule, source: fx.Node, form: ScaleShift) -> bool:
    """BN over a channel concat of layers → each layer with its share."""
    if source.target is not aten.cat.default or not sole_user(source):
        return False
    arguments = named_arguments(source)
    parts = [read_linear(module, part) for part in arguments["tensors"]]
    if arguments["dim"] != 1 or len(set(arguments["tensors"])) != len(parts):
        return False  # a part that occurs twice would be changed twice
    if any(part is None or not sole_user(part.node) or part.rank == 0 for part in parts):
        return False
    start = 0
    for part in parts:
        assert part is not None
        share = slice(start, start + part.outputs)
        start += part.outputs
        fold_after(module, part.node, ScaleShift(form.scale[share], form.shift[share]))
        part.node.meta["stands_for"] = None  # no call gave this value before; the concat is compared
    return True


def fold_before(module: fx.GraphModule, result: fx.Node, form: ScaleShift) -> bool:
    """W∗(s·x + t) + b → one layer."""
    if not sole_user(result):
        return False
    linear = read_linear(module, next(iter(result.users)))
    if linear is None or linear.source is not result or linear.transposed:
        return False
    if (linear.rank == 0 and len(shape(result)) != 2) or (any(linear.padding) and bool(form.shift.any())):
        return False
    per_input = linear.weight.shape[1]
    group_of_output = torch.arange(linear.outputs) // (linear.outputs // linear.groups)
    inputs = group_of_output[:, None] * per_input + torch.arange(per_input)
    tail = (1,) * linear.rank
    scaled = linear.weight * form.scale[inputs].reshape(*inputs.shape, *tail)
    moved = (linear.weight * form.shift[inputs].reshape(*inputs.shape, *tail)).flatten(1).sum(1)
    rewrite_linear(module, linear, scaled, linear.bias_or_zero() + moved)
    return True


def lower(module: fx.GraphModule, result: fx.Node, source: fx.Node, form: ScaleShift) -> fx.Node:
    """BN(x) → x·s + t."""
    tail = (1,) * (len(shape(source)) - 2)
    scale = insert_constant(module, result, form.scale.reshape(1, -1, *tail), "scale")
    shift = insert_constant(module, result, form.shift.reshape(1, -1, *tail), "shift")
    scaled = insert_call(result, aten.mul.Tensor, source, scale, like=source)
    return insert_call(result, aten.add.Tensor, scaled, shift, like=source)


def scale_outputs(linear: Linear, scale: Tensor) -> Tensor:
    """Returns the weight with output channel o multiplied by scale[o]."""
    weight = linear.weight
    if not linear.transposed:
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    groups, tail = linear.groups, weight.shape[1:]
    grouped = weight.reshape(groups, -1, *tail) * scale.reshape(groups, 1, tail[0], *(1,) * linear.rank)
    return grouped.reshape(weight.shape)

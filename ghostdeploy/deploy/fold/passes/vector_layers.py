"""A 1×1 convolution on a pooled map becomes a linear layer on vectors.

    conv(x, W)[n, o, 0, 0]  =  Σ_c W[o, c]·x[n, c, 0, 0]  =  linear(flatten(x), W)[n, o]        x of shape (N, C, 1, 1)

A *vector layer* uses each weight once per image, so it is memory-bound: runtimes have a matrix-vector kernel for
linear layers and none for convolutions on one position, and quantizers of weights alone look for linear layers only.
Squeeze-and-excite gates, the head after the pool and the merge of a G-Ghost stage are such layers. Activations, sums
and concatenations between two of them go along, so that the form changes at the ends of each chain only: the pool
gives (N, C) at once, and (N, C, 1, 1) comes back where a map is scaled.
Refused: groups, transposed convolutions, kernels that read padding.
Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, section 3 (fully connected layers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_flow import channels
from ghostdeploy.deploy.fold.passes.channel_parts import is_channelwise, is_dense, is_vector, two_operands
from ghostdeploy.deploy.fold.passes.graph import (
    Linear,
    aten,
    calls,
    insert_call,
    insert_constant,
    named_arguments,
    op_name,
    read_linear,
    replace,
    shape,
)
from ghostdeploy.deploy.fold.passes.pool_before_concat import is_global_average

if TYPE_CHECKING:
    from torch import fx

_ANY_RANK = frozenset({"relu", "sigmoid", "hardsigmoid", "hardswish", "silu", "gelu", "hardtanh", "clamp", "relu6"})
_FLATTENING = frozenset({"flatten", "reshape", "squeeze", "mean"})


class VectorLayers:
    """Convolutions of (N, C, 1, 1) → linear layers of (N, C)."""

    name = "VectorLayers"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        found = [node for node in calls(module) if vector_layer(module, node) is not None]
        chain = region(module, found)
        flat: dict[fx.Node, fx.Node] = {}
        for node in calls(module):
            if node in chain:
                flat[node] = flatten(module, node, flat)
        for node in reversed(flat):
            if not node._erased:
                reshape_readers(node, flat)
        return PassResult(module, len(found))


def vector_layer(module: fx.GraphModule, node: fx.Node) -> Linear | None:
    """Returns the layer if it is a dense convolution from one position to one, None for anything else."""
    linear = read_linear(module, node)
    if not is_dense(linear) or linear is None or linear.rank != 2:
        return None
    one = shape(linear.source)[2:] == (1, 1) == shape(node)[2:]
    return linear if one and linear.weight.shape[2:] == (1, 1) and not any(linear.padding) else None


def region(module: fx.GraphModule, layers: list[fx.Node]) -> set[fx.Node]:
    """Returns the layers and the calls on vectors that touch them: pools before, activations between and after."""
    found, waiting = set(layers), list(layers)
    while waiting:
        node = waiting.pop()
        for other in (*node.all_input_nodes, *node.users):
            if other not in found and goes_along(module, other):
                found.add(other)
                waiting.append(other)
    return found


def goes_along(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns whether a call on (N, C, 1, 1) has a form on (N, C)."""
    if node.op != "call_function" or len(shape(node)) != 4 or not is_vector(node):
        return False
    if is_global_average(node) or vector_layer(module, node) is not None:
        return True
    if op_name(node) == "cat":
        return bool(named_arguments(node)["dim"] % 4 == 1)
    if (pair := two_operands(node)) is not None:
        return all(is_vector(one) for one in pair)
    return op_name(node) in _ANY_RANK and is_channelwise(module, node)


def flatten(module: fx.GraphModule, node: fx.Node, flat: dict[fx.Node, fx.Node]) -> fx.Node:
    """Inserts the call on (N, C) that stands for one on (N, C, 1, 1)."""

    def source(one: fx.Node) -> fx.Node:
        if one in flat:
            return flat[one]
        return as_vector(insert_call(node, aten.flatten.using_ints, one, 1), one)

    if is_global_average(node):
        return as_vector(insert_call(node, aten.mean.dim, node.args[0], [2, 3]), node)
    if (linear := vector_layer(module, node)) is not None:
        weight = insert_constant(module, node, linear.weight.flatten(1), f"{linear.name}_weight")
        stored = [] if linear.bias is None else [insert_constant(module, node, linear.bias, f"{linear.name}_bias")]
        return as_vector(insert_call(node, aten.linear.default, source(linear.source), weight, *stored), node)
    if op_name(node) == "cat":
        parts = [source(part) for part in named_arguments(node)["tensors"]]
        return as_vector(insert_call(node, node.target, parts, 1), node)
    operands = two_operands(node) or (node.args[0],)
    call = insert_call(node, node.target, *(source(one) for one in operands), *node.args[len(operands) :])  # type: ignore[arg-type]
    call.kwargs = node.kwargs
    return as_vector(call, node)


def reshape_readers(node: fx.Node, flat: dict[fx.Node, fx.Node]) -> None:
    """Gives the readers outside the chain what they read: (N, C) itself where they flatten, else (N, C, 1, 1)."""
    vector = flat[node]
    for user in list(node.users):
        if user not in flat and shape(user) == shape(vector) and op_name(user) in _FLATTENING:
            replace(user, vector)
    if any(user not in flat for user in node.users):
        # One reshape, not two unsqueezes: −1 leaves the batch free.
        replace(node, insert_call(node, aten.reshape.default, vector, [-1, channels(node), 1, 1], like=node))


def as_vector(call: fx.Node, like: fx.Node) -> fx.Node:
    """Notes the shape (N, C) of a new call."""
    call.meta |= {"shape": shape(like)[:2], "dtype": like.meta.get("dtype")}
    return call

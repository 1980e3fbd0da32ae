"""A value in parts: the result of a call by channel ranges, without computing the whole first.

With x = concat(x₁, …, x_k) along the channels, n_i the channels of x_i:

    channelwise g (ReLU, sigmoid, pooling, resize)     g(x)_i = g(x_i)
    grouped convolution, n_i whole groups              (W∗x + b)_i = W_i∗x_i + b_i          depthwise is the usual case
    dense layer                                        (W·x + b)_i = W[rows i]·x + b[rows i]
    sum, product                                       (x ∘ y)_i = x_i ∘ y_i

`map_parts`, `split_groups` and `sum_of_columns` follow a call whose source is in parts, `backward` takes a finished
value apart at the layers that make it.
Weights are cut, never activations; only a *vector* (one value per channel) may be sliced where nothing else helps.
"""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

from torch import Tensor, fx

from ghostdeploy.deploy.fold.passes.channel_flow import channels, read_flow
from ghostdeploy.deploy.fold.passes.graph import (
    Linear,
    aten,
    insert_call,
    insert_constant,
    named_arguments,
    op_name,
    read_linear,
    shape,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_BINARY = frozenset({"add", "mul", "sub"})
_NOT_ALONE = _BINARY | {"cat", "slice", "reshape", "flatten"}


def is_channelwise(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns whether a call maps each channel of its one tensor alone, by the same rule for all channels."""
    if op_name(node) in _NOT_ALONE or len(node.all_input_nodes) != 1:
        return False
    flow = read_flow(module, node)
    if flow is None or len(flow.sources) != 1:
        return False
    source = flow.sources[0][0]
    return channels(source) == channels(node) and len(shape(source)) == len(shape(node))


def is_vector(node: fx.Node) -> bool:
    """Returns whether a value has one number per channel."""
    return len(shape(node)) >= 2 and prod(shape(node)[2:]) == 1


def is_dense(linear: Linear | None) -> bool:
    """Returns whether a layer of the usual kind mixes all its input channels."""
    return linear is not None and not linear.transposed and linear.groups == 1


def fits_groups(linear: Linear | None, sizes: Sequence[int]) -> bool:
    """Returns whether parts of these input channels are whole groups of a grouped convolution."""
    if linear is None or linear.transposed or linear.groups == 1:
        return False
    return all(size % linear.weight.shape[1] == 0 for size in sizes)


def two_operands(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Returns the operands of a sum or product of two computed values of equal rank and channels."""
    if op_name(node) not in _BINARY or node.kwargs or len(node.args) != 2:
        return None
    left, right = node.args
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node) or "get_attr" in (left.op, right.op):
        return None
    same = channels(left) == channels(right) == channels(node) and len(shape(left)) == len(shape(right))
    return (left, right) if same else None


def calls_behind(
    module: fx.GraphModule, node: fx.Node, sizes: Sequence[int], readers: Collection[fx.Node]
) -> list[fx.Node] | None:
    """Returns the calls that `backward` repeats for each part of a value; None where it cannot take it apart.

    Args:
        module: The graph.
        node: The value.
        sizes: Channels of each part.
        readers: Calls that will read the parts; anything else that reads `node` needs the whole.
    """
    if node.op == "call_function" and set(node.users) <= set(readers):
        linear = read_linear(module, node)
        if linear is not None and is_dense(linear):
            return [node] if len(shape(node)) == linear.weight.ndim else None
        sources: tuple[fx.Node, ...] = ()
        if linear is not None:
            sources = (linear.source,) if _takes_groups(linear, sizes) else ()
        elif is_channelwise(module, node):
            sources = (node.all_input_nodes[0],)
        elif (pair := two_operands(node)) is not None and pair[0] is not pair[1]:
            sources = pair
        behind = [calls_behind(module, source, sizes, [node]) for source in sources]
        if behind and None not in behind:
            return [node, *(call for found in behind for call in found or ())]
    return [] if is_vector(node) else None


def backward(
    module: fx.GraphModule, node: fx.Node, sizes: Sequence[int], readers: Collection[fx.Node]
) -> list[fx.Node]:
    """Returns `node` in parts; `calls_behind` has checked that this is possible. Its own call dies with its readers."""
    if not calls_behind(module, node, sizes, readers):
        place = node.next
        cuts = (insert_call(place, aten.slice.Tensor, node, 1, start, stop) for start, stop in ranges(sizes))
        return [sized(cut, node, size) for cut, size in zip(cuts, sizes, strict=True)]
    linear = read_linear(module, node)
    if linear is not None and is_dense(linear):
        return _rows(module, linear, sizes)
    if linear is not None:
        return split_groups(module, linear, backward(module, linear.source, sizes, [node]))
    if is_channelwise(module, node):
        return map_parts(node, backward(module, node.all_input_nodes[0], sizes, [node]))
    pair = two_operands(node)
    assert pair is not None  # guaranteed by calls_behind()
    return combine_parts(node, *(backward(module, one, sizes, [node]) for one in pair))


def sized(call: fx.Node, like: fx.Node, count: int) -> fx.Node:
    """Notes the shape of a new call: that of `like` with `count` channels."""
    call.meta |= {"shape": (shape(like)[0], count, *shape(like)[2:]), "dtype": like.meta.get("dtype")}
    return call


def combine_parts(node: fx.Node, lefts: Sequence[fx.Node], rights: Sequence[fx.Node]) -> list[fx.Node]:
    """Repeats a sum or product on each pair of parts."""
    pairs = zip(lefts, rights, strict=True)
    return [sized(insert_call(node, node.target, a, b), node, channels(a)) for a, b in pairs]


def map_parts(node: fx.Node, parts: Sequence[fx.Node]) -> list[fx.Node]:
    """Repeats a channelwise call on each part."""
    found = []
    for part in parts:
        call = insert_call(node, node.target, part, *node.args[1:])
        call.kwargs = node.kwargs
        found.append(sized(call, node, channels(part)))
    return found


def split_groups(module: fx.GraphModule, linear: Linear, parts: Sequence[fx.Node]) -> list[fx.Node]:
    """Repeats a grouped convolution on each part, with the groups that read it."""
    width = linear.weight.shape[1]
    per_group = linear.weight.shape[0] // linear.groups
    sizes = [channels(part) // width * per_group for part in parts]
    found = []
    for part, (start, stop) in zip(parts, ranges(sizes), strict=True):
        bias = None if linear.bias is None else linear.bias[start:stop]
        found.append(layer_call(module, linear, part, linear.weight[start:stop], bias))
    return found


def sum_of_columns(module: fx.GraphModule, linear: Linear, parts: Sequence[fx.Node]) -> fx.Node:
    """Returns Σ W[columns i]·x_i + b of a dense layer."""
    total: fx.Node | None = None
    for part, (start, stop) in zip(parts, ranges([channels(part) for part in parts]), strict=True):
        bias = linear.bias if total is None else None
        term = layer_call(module, linear, part, linear.weight[:, start:stop], bias)
        total = term if total is None else insert_call(linear.node, aten.add.Tensor, total, term, like=linear.node)
    assert total is not None  # a concatenation has parts
    return total


def layer_call(module: fx.GraphModule, like: Linear, source: fx.Node, weight: Tensor, bias: Tensor | None) -> fx.Node:
    """Inserts a layer like `like` on another source with cut weights."""
    stored = [insert_constant(module, like.node, weight, f"{like.name}_weight")]
    stored += [] if bias is None else [insert_constant(module, like.node, bias, f"{like.name}_bias")]
    named = named_arguments(like.node) | {"input": source, "weight": stored[0], "bias": (*stored[1:], None)[0]}
    if "groups" in named and like.groups != 1:
        named["groups"] = like.groups * weight.shape[0] // like.weight.shape[0]
    return sized(insert_call(like.node, like.node.target, *named.values()), like.node, weight.shape[0])


def ranges(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Returns (start, stop) of consecutive ranges of these sizes."""
    stops = list(accumulate(sizes))
    return list(zip([0, *stops[:-1]], stops, strict=True))


def _takes_groups(linear: Linear, sizes: Sequence[int]) -> bool:
    """Returns whether a grouped convolution's output parts are whole groups of as many input channels."""
    same = linear.weight.shape[0] == linear.weight.shape[1] * linear.groups
    return same and fits_groups(linear, sizes)


def _rows(module: fx.GraphModule, linear: Linear, sizes: Sequence[int]) -> list[fx.Node]:
    found = []
    for start, stop in ranges(sizes):
        bias = None if linear.bias is None else linear.bias[start:stop]
        found.append(layer_call(module, linear, linear.source, linear.weight[start:stop], bias))
    return found

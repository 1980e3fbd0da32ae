"""How passes read and write the graph: constants, consumers, and one record for all convolution-like calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

aten = torch.ops.aten

CASTS: frozenset[Any] = frozenset({aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default})
"""Calls that change the type of a tensor and nothing else."""

Pair = tuple[int, ...]

_CONVOLUTIONS = {aten.conv1d.default: 1, aten.conv2d.default: 2, aten.conv3d.default: 3}
_WORDED = {aten.conv1d.padding: 1, aten.conv2d.padding: 2, aten.conv3d.padding: 3}
_TRANSPOSED = {aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2, aten.conv_transpose3d.input: 3}
_LAYERS: frozenset[Any] = frozenset(
    {*_CONVOLUTIONS, *_WORDED, *_TRANSPOSED, aten.convolution.default, aten.linear.default}
)


@dataclass(frozen=True, slots=True)
class Linear:
    """A convolution, transposed convolution or linear layer with constant weights.

    Weight layout: convolution (out, in/groups, *kernel), transposed (in, out/groups, *kernel), linear (out, in).
    """

    node: fx.Node
    source: fx.Node
    weight: Tensor
    bias: Tensor | None
    stride: Pair = ()
    padding: Pair = ()
    dilation: Pair = ()
    groups: int = 1
    transposed: bool = False

    @property
    def rank(self) -> int:
        """Spatial dimensions; 0 for a linear layer."""
        return self.weight.ndim - 2

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0]

    @property
    def name(self) -> str:
        """Attribute name of the layer, from that of its weight."""
        stem = str(named_arguments(self.node)["weight"].target).replace(".", "_")
        return stem.rstrip("0123456789").rstrip("_").removesuffix("weight").rstrip("_") or "layer"

    def bias_or_zero(self) -> Tensor:
        """The bias (outputs,), zeros where there is none."""
        return self.weight.new_zeros(self.outputs) if self.bias is None else self.bias


def read_linear(module: fx.GraphModule, node: object) -> Linear | None:
    """Returns the record of a convolution-like call with constant weights, None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or node.target not in _LAYERS:
        return None
    arguments = named_arguments(node)
    weight = constant(module, arguments["weight"])
    bias = constant(module, arguments.get("bias"))
    if weight is None or (arguments.get("bias") is not None and bias is None):
        return None
    source = cast("fx.Node", arguments["input"])
    if node.target is aten.linear.default:
        return Linear(node, source, weight, bias)
    rank = weight.ndim - 2
    stride, dilation = spread(arguments["stride"], rank), spread(arguments["dilation"], rank)
    padding = _padding(arguments["padding"], tuple(weight.shape[2:]), stride, dilation)
    if padding is None:
        return None
    transposed = node.target in _TRANSPOSED or bool(arguments.get("transposed", False))
    return Linear(node, source, weight, bias, stride, padding, dilation, arguments["groups"], transposed)


def _padding(value: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Pair | None:
    """Returns numbers for the words too; `same` has them where d·(k − 1) is even."""
    if not isinstance(value, str):
        return spread(value, len(kernel))
    if value == "valid":
        return (0,) * len(kernel)
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return None if any(t % 2 for t in total) or set(stride) != {1} else tuple(t // 2 for t in total)


def op_name(node: object) -> str:
    """Returns the ATen name of a call without namespace and overload (`conv2d`), an empty string for other nodes."""
    if not isinstance(node, fx.Node) or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    namespace, _, name = node.target._schema.name.partition("::")
    return name if namespace == "aten" else ""


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """Returns all arguments of an ATen call by name, defaults included."""
    target = cast("torch._ops.OpOverload", node.target)
    found = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(node.args):
            found[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value
    return found


def spread(value: Any, rank: int) -> Pair:
    """Returns one number per spatial dimension."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * rank if len(values) == 1 else values


def constant(module: fx.GraphModule, node: object) -> Tensor | None:
    """Returns the tensor behind a `get_attr` node, None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner: Any = module
    for part in str(node.target).split("."):
        owner = getattr(owner, part)
    return owner.detach() if isinstance(owner, Tensor) else None


def scalar(module: fx.GraphModule, value: object) -> float | None:
    """Returns the number that an argument stands for: a Python number or a constant of one element."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    tensor = constant(module, value)
    return float(tensor) if tensor is not None and tensor.numel() == 1 else None


def insert_constant(module: fx.GraphModule, before: fx.Node, tensor: Tensor, hint: str) -> fx.Node:
    """Stores a tensor as a parameter of the module and returns a node that reads it, placed before `before`."""
    name, number = hint, 0
    while hasattr(module, name):
        name, number = f"{hint}_{number}", number + 1
    module.register_parameter(name, nn.Parameter(tensor.contiguous(), requires_grad=False))
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(name)
    node.meta |= {"shape": tuple(tensor.shape), "dtype": tensor.dtype}
    if tensor.is_floating_point() and "recorded" in before.meta:
        node.meta["recorded"] = before.meta["recorded"]
    return node


def rewrite_linear(module: fx.GraphModule, linear: Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Gives a convolution-like call new weights; the old ones stay for other users."""
    node = linear.node
    arguments = [linear.source, insert_constant(module, node, weight, f"{linear.name}_weight")]
    arguments.append(None if bias is None else insert_constant(module, node, bias, f"{linear.name}_bias"))  # type: ignore[arg-type]
    node.args = (*arguments, *node.args[3:])
    node.kwargs = {key: value for key, value in node.kwargs.items() if key not in {"weight", "bias"}}


def insert_call(before: fx.Node, target: Any, *arguments: Any, like: fx.Node | None = None) -> fx.Node:
    """Inserts an ATen call before `before`, for messages in the same PyTorch module; its shape is that of `like`."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, arguments)
    if like is not None:
        node.meta = {key: value for key, value in like.meta.items() if key not in {"stands_for", "widens"}}
    if "nn_module_stack" in before.meta:
        node.meta.setdefault("nn_module_stack", before.meta["nn_module_stack"])
    return node


def replace(old: fx.Node, new: fx.Node) -> None:
    """Lets all readers of `old` read `new`, which gives the same value; the runner compares the two."""
    new.meta["stands_for"] = old.meta.get("stands_for", old.name)
    if "recorded" in old.meta:
        new.meta.setdefault("recorded", old.meta["recorded"])
    reconnect(old, new)


def reconnect(old: fx.Node, new: fx.Node) -> None:
    """Lets all readers of `old` read `new`, and erases what nobody reads any more: counts of readers stay true."""
    old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    dead = [old]
    while dead:
        node = dead.pop()
        if node.op == "call_function" and not node.users and not node._erased:
            dead += node.all_input_nodes
            node.graph.erase_node(node)


def calls(module: fx.GraphModule, *targets: Any) -> Iterator[fx.Node]:
    """Yields the calls of any of the targets (of all, when none is named) in order; the graph may change meanwhile."""
    for node in list(module.graph.nodes):
        if not node._erased and node.op == "call_function" and (not targets or node.target in targets):
            yield node


def sole_user(node: fx.Node) -> bool:
    """Returns whether exactly one node reads this one."""
    return len(node.users) == 1


def shape(node: Any) -> tuple[int, ...]:
    """Returns the shape seen in the last run, () if it gave no tensor."""
    found: tuple[int, ...] = node.meta.get("shape", ())
    return found


def per_channel(tensor: Tensor | None, node: fx.Node) -> Tensor | None:
    """Returns a constant that broadcasts along channels only as a vector (channels,), else None.

    Args:
        tensor: The constant.
        node: The call whose result has (N, channels, …).
    """
    rank, channels = len(shape(node)), shape(node)[1] if len(shape(node)) > 1 else 0
    if tensor is None or not channels:
        return None
    if tensor.numel() == 1:
        return tensor.reshape(1).expand(channels)
    padded = (1,) * (rank - tensor.ndim) + tuple(tensor.shape)
    return tensor.reshape(-1) if padded == (1, channels, *(1,) * (rank - 2)) else None


def precision(node: fx.Node) -> torch.dtype | None:
    """Returns the type of a node's result in the module's own precision, see `widen`; None if it gave no tensor."""
    found: torch.dtype | None = node.meta.get("recorded", node.meta.get("dtype"))
    return found


def prune(module: fx.GraphModule) -> fx.GraphModule:
    """Removes dead calls and every tensor that no node reads."""
    module.graph.eliminate_dead_code()
    root: dict[str, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            owner: Any = module
            for part in str(node.target).split("."):
                owner = getattr(owner, part)
            root[str(node.target)] = owner
    plain = fx.GraphModule(root, module.graph, class_name="FoldedGraph")
    plain.training = False
    return plain

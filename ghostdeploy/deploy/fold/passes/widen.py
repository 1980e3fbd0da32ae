"""The same graph in float64, for the proof, and back in the precisions that were recorded.

A graph holds its precision in tensors, in dtype arguments (`to(x, float16)`), and in calls that make floats from
integers, which take torch's default type. `widen` makes all of them float64, so that a module which casts halfway, or
has parts in float16, is proven in float64 whole. Each node keeps what it was in `meta["recorded"]`:

    to(x, float16)     becomes   to(x, float64), recorded as float16: no no-op where x is recorded as float32
    i / j              becomes   to(i / j, float64), taken away again by `narrow`
    a16 + b32          becomes   to(a, float64) + b: a pass that joins calls sees where the precision changes

A region of autocast or `no_grad` is a graph of its own, which no pass looks into: its dtype arguments become float64,
and at the end what they were. In float64 autocast has no effect.

The replacement of a node takes over its record, see `graph.replace`; without one, the neighbours' records apply.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ghostdeploy.deploy.fold.passes.graph import CASTS, aten, constant, named_arguments, precision
from ghostdeploy.errors import GateFailed

WIDE: dict[torch.dtype, torch.dtype] = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.float64: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
    torch.complex128: torch.complex128,
}
"""What becomes what. Types of 8 bits stay: networks cast to them to round."""
_COMPLEX = {torch.float16: torch.complex32, torch.float32: torch.complex64, torch.float64: torch.complex128}
_REAL = {partner: real for real, partner in _COMPLEX.items()}
_ADDED = "widens"
"""Marks a cast that `widen` put in and `narrow` takes out."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a graph was before it became float64."""

    outputs: tuple[torch.dtype | None, ...]
    only: torch.dtype | None
    """The one floating-point type of all values; None where there are several."""
    first: torch.dtype
    """Type of the first floating-point value."""
    regions: tuple[tuple[fx.Node, Any, Any], ...]
    """Calls inside regions, with their arguments."""


def wide(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns floating-point inputs in float64, the others as they are."""
    return tuple(tensor.to(WIDE.get(tensor.dtype, tensor.dtype)) for tensor in inputs)


def widen(module: fx.GraphModule, *, without: torch.dtype | None = None) -> Recorded:
    """Makes every floating-point value of a graph float64, in place.

    Args:
        module: Nodes carry `meta["dtype"]` of a run in their own precision, see `precision.run`.
        without: A type that is to become float32 at the end, `torch.float64` for engines that have none.
    """
    nodes = list(module.graph.nodes)
    dropped = () if without is None else (without, _COMPLEX.get(without))
    for node in _nodes_of_regions(module):
        _convert_arguments(node, lambda dtype: torch.float32 if dtype is without else dtype)
    for node in nodes:
        if (dtype := node.meta.get("dtype")) in WIDE:
            other = torch.float32 if dtype.is_floating_point else torch.complex64
            node.meta["recorded"] = other if dtype in dropped else dtype
    found = [node.meta["recorded"] for node in nodes if "recorded" in node.meta]
    kinds = dict.fromkeys(_REAL.get(dtype, dtype) for dtype in found)
    outputs = tuple(precision(leaf) for leaf in _returned(module) if "dtype" in leaf.meta)
    recorded = Recorded(
        outputs=outputs,
        only=next(iter(kinds)) if len(kinds) == 1 else None,
        first=next(iter(kinds), torch.float32),
        regions=tuple((node, node.args, node.kwargs) for node in _nodes_of_regions(module)),
    )
    for node in nodes:
        if node.op == "call_function" and "recorded" in node.meta:
            if recorded.only is None:
                _write_promotions(node)
            if _makes_floats(node):
                _cast_result(node)
    for node in module.graph.nodes:
        _convert(module, node, lambda dtype: WIDE.get(dtype, dtype))
    for node in _nodes_of_regions(module):
        _convert_arguments(node, lambda dtype: WIDE.get(dtype, dtype))
    _recompile(module)
    return recorded


def narrow(module: fx.GraphModule, recorded: Recorded, inputs: tuple[Tensor, ...]) -> None:
    """Brings a graph back, in place, and leaves what each node is in `meta["dtype"]`.

    Args:
        module: In float64, after its passes.
        recorded: What `widen` gave.
        inputs: The example, in float64.

    Raises:
        GateFailed: A graph of several precisions does not run in them any more, or returns others.
    """
    for node in list(module.graph.nodes):
        if node.meta.get(_ADDED):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    for node in module.graph.nodes:
        kind = _kind(node, recorded)
        if node.meta.get("dtype") in WIDE:
            node.meta["recorded"] = _narrowed(node.meta["dtype"], kind)
        _convert(module, node, lambda dtype, kind=kind: _narrowed(dtype, kind))
    for node in module.graph.nodes:
        if "recorded" in node.meta:
            node.meta["dtype"] = node.meta.pop("recorded")
    for node, args, kwargs in recorded.regions:
        node.args, node.kwargs = args, kwargs
    _recompile(module)
    if recorded.only is None:
        _check(module, recorded, inputs)


def _narrowed(dtype: torch.dtype, kind: torch.dtype) -> torch.dtype:
    real = _REAL.get(kind, kind)
    if dtype is torch.float64:
        return real
    return _COMPLEX.get(real, dtype) if dtype is torch.complex128 else dtype


def _kind(node: fx.Node, recorded: Recorded) -> torch.dtype:
    """Returns the floating-point type that a node is to have: as noted, else as its neighbours have."""
    if recorded.only is not None:
        return recorded.only
    around = [node, *(node.users if node.op == "get_attr" else node.all_input_nodes), *node.users]
    noted = (one.meta.get("recorded") for one in around)
    return next((dtype for dtype in noted if dtype is not None), recorded.first)


def _convert(module: fx.GraphModule, node: fx.Node, change: Any) -> None:
    """Changes the tensor behind a node, or its dtype arguments."""
    if node.op == "get_attr" and constant(module, node) is not None:
        owner, _, name = str(node.target).rpartition(".")
        holder = module.get_submodule(owner)
        tensor = getattr(holder, name)
        if tensor.dtype != (dtype := change(tensor.dtype)):
            if isinstance(tensor, torch.nn.Parameter):
                tensor.requires_grad = False
                tensor.data = tensor.data.to(dtype)
            else:
                setattr(holder, name, tensor.to(dtype))
    elif node.op == "call_function":
        _convert_arguments(node, change)


def _convert_arguments(node: fx.Node, change: Any) -> None:
    if isinstance(node.target, torch._ops.OpOverload):  # what autocast casts to stays
        named = {key: change(value) for key, value in node.kwargs.items() if isinstance(value, torch.dtype)}
        if named:
            node.kwargs = {**node.kwargs, **named}
        if any(isinstance(value, torch.dtype) for value in node.args):
            node.args = tuple(change(value) if isinstance(value, torch.dtype) else value for value in node.args)


def _nodes_of_regions(module: fx.GraphModule) -> list[fx.Node]:
    inner = [one for one in module.modules() if isinstance(one, fx.GraphModule) and one is not module]
    return [node for one in inner for node in one.graph.nodes if node.op == "call_function"]


def _recompile(module: fx.GraphModule) -> None:
    for one in module.modules():
        if isinstance(one, fx.GraphModule):
            one.recompile()


def _makes_floats(node: fx.Node) -> bool:
    """Returns whether a call gives floating-point numbers of torch's default type: it gets none, and names no type."""
    if node.target is operator.getitem or not isinstance(node.target, torch._ops.OpOverload):
        return False
    if any("recorded" in source.meta or "dtype" not in source.meta for source in _tensors(node)):
        return False
    return named_arguments(node).get("dtype") is None


def _tensors(node: fx.Node) -> list[fx.Node]:
    """Returns what a call reads, numbers such as sizes left out."""
    return [one for one in node.all_input_nodes if not isinstance(one.meta.get("val"), int | float | torch.SymInt)]


def _cast_result(node: fx.Node) -> None:
    with node.graph.inserting_after(node):
        cast = node.graph.call_function(aten.to.dtype, (node, torch.float64))
    cast.meta = {"recorded": node.meta["recorded"], "dtype": torch.float64, _ADDED: True}
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def _write_promotions(node: fx.Node) -> None:
    """Casts narrower arguments before the call, as torch does inside it."""
    result = node.meta["recorded"]
    if node.target in CASTS or not result.is_floating_point:
        return
    for source in node.all_input_nodes:
        given = source.meta.get("recorded")
        if given in (None, result) or not given.is_floating_point or torch.promote_types(given, result) != result:
            continue
        with node.graph.inserting_before(node):
            cast = node.graph.call_function(aten.to.dtype, (source, result))
        kept: dict[str, Any] = {key: source.meta[key] for key in ("shape", "nn_module_stack") if key in source.meta}
        cast.meta = {**kept, "recorded": result, "dtype": result}
        node.replace_input_with(source, cast)


def _returned(module: fx.GraphModule) -> list[fx.Node]:
    output = next(node for node in module.graph.nodes if node.op == "output")
    return [leaf for leaf in pytree.tree_leaves(output.args) if isinstance(leaf, fx.Node)]


def _check(module: fx.GraphModule, recorded: Recorded, inputs: tuple[Tensor, ...]) -> None:
    given = [node.meta.get("dtype") for node in module.graph.nodes if node.op == "placeholder"]
    example = [tensor.to(dtype or tensor.dtype) for tensor, dtype in zip(inputs, given, strict=True)]
    try:
        with torch.no_grad():
            leaves = pytree.tree_leaves(module(*example))
        found = tuple(leaf.dtype for leaf in leaves if isinstance(leaf, Tensor))
        fault = "" if found == recorded.outputs else f"returns {_names(found)}, expected {_names(recorded.outputs)}"
    except RuntimeError as error:
        fault = f"cannot run in the precisions of the model: {str(error).splitlines()[0]}"
    if fault:
        raise GateFailed(f"the folded graph {fault}", hint="this is a bug in a pass: please report it with the model")


def _names(dtypes: tuple[torch.dtype | None, ...]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)

"""From a module to a plain graph of ATen calls.

`torch.export` captures what the module does for inputs like the example; the result is normalised so that a pass sees
only one form of everything: no guard calls, no in-place operations, no `view`.

    y = f_(x)   becomes   y = f(x),  and what read x after the call reads y

    view(x, shape)   becomes   reshape(x, shape)

    zeros(shape)   becomes   zeros(shape, dtype=float32)

The second gives the same values wherever `view` runs at all, and continues doing so when a pass removes the
`contiguous` before it. The third names torch's default type as it was while the module ran. The first holds while no
other tensor shares the memory of x. Where a view does, torch's own functionalisation does the rewriting instead, at the
price of a second trace. A node's shape is what the last run left in `meta["shape"]`, see
`ghostdeploy.deploy.fold.passes.precision`.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.nn.utils import parametrize

from ghostdeploy.convert.process import INDUCTOR_CACHE
from ghostdeploy.deploy.fold.passes.graph import named_arguments, op_name, prune
from ghostdeploy.deploy.fold.unrecorded import why_it_cannot_be_recorded
from ghostdeploy.errors import CheckpointError
from ghostdeploy.module_copies import copy_module, in_eval_mode
from ghostdeploy.undisturbed import undisturbed

if TYPE_CHECKING:
    from torch import Tensor, nn

_WHOLE = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
_CHECKS = ("_assert", "sym_constrain", "_guards_fn")
_VIEWS: frozenset[Any] = frozenset({torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default})
_MAY_ALIAS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})


def capture(module: nn.Module, example: Tensor | tuple[Tensor, ...], *, dynamic_batch: bool = False) -> fx.GraphModule:
    """Records a module as a graph of functional ATen calls.

    Args:
        module: Any module `torch.export` can record; it is copied, not changed, and recorded in eval mode.
        example: Its input or inputs, first dimension the batch.
        dynamic_batch: Leave the batch free. A single image is doubled for it: a batch of one would be taken for a
            constant.

    Returns:
        A graph on the CPU that takes and returns what the module does.

    Raises:
        CheckpointError: `torch.export` cannot record it.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    shapes: Any = None
    if dynamic_batch:
        inputs = of_several(inputs)
        batch = torch.export.Dim("batch")
        shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        for tensor in inputs:
            shapes[tensor] = {0: batch}
    with torch.no_grad(), warnings.catch_warnings():
        # torch.export warns about its own use of its own deprecated class.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        # And about the lists of weights that its own recurrent layers keep.
        warnings.filterwarnings("ignore", message=r"The tensor attributes? .*_flat_weights", category=UserWarning)
        program = _export(_with_plain_weights(in_eval_mode(copy_module(module).cpu())), inputs, shapes)
        recorded = _graph_module(program)
        if not make_functional(recorded):
            recorded = _graph_module(program.run_decompositions({}))
            _drop_state_updates(recorded)
            make_functional(recorded)
    for graph in (part.graph for part in recorded.modules() if isinstance(part, fx.GraphModule)):
        for node in graph.nodes:
            _write_type(node)
    for node in reversed(list(recorded.graph.nodes)):
        if node.target in _VIEWS:
            node.target = torch.ops.aten.reshape.default
        name = op_name(node) or str(node.target)
        if node.op in {"call_function", "call_module"} and name.startswith(_CHECKS) and not node.users:
            recorded.graph.erase_node(node)
    return prune(recorded)


def _with_plain_weights(module: nn.Module) -> nn.Module:
    """Stores what parametrizations compute (orthogonal, spectral norm, weight norm) as weights; changes a module.

    torch's own `remove_parametrizations` changes the class, which the user's module shares.
    """
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            names: Any = part.parametrizations
            values = {name: getattr(part, name).detach().clone(memory_format=torch.contiguous_format) for name in names}
            part.__class__ = parametrize.type_before_parametrizations(part)
            del part.parametrizations
            for name, value in values.items():
                part.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    return module


def _write_type(node: fx.Node) -> None:
    """Names the type of floats that are made from nothing."""
    made = node.meta.get("val")
    if not isinstance(node.target, torch._ops.OpOverload) or not isinstance(made, torch.Tensor):
        return
    from_nothing = not any(isinstance(source.meta.get("val"), torch.Tensor) for source in node.all_input_nodes)
    if from_nothing and made.dtype not in _WHOLE and named_arguments(node).get("dtype", made) is None:
        node.update_kwarg("dtype", made.dtype)


def of_several(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Doubles single images: in a batch of one the dynamic dimension would look like a constant 1."""
    return tuple(torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor for tensor in inputs)


def _export(module: nn.Module, inputs: tuple[Tensor, ...], shapes: Any) -> torch.export.ExportedProgram:
    _import_bisector()
    try:
        with undisturbed():
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises errors of a dozen unrelated classes
        reason, hint = why_it_cannot_be_recorded(module, error)
        dynamic = "; or fix the batch" if shapes is not None else ""
        raise CheckpointError(
            f"torch.export cannot capture {type(module).__name__}: {reason}", hint=f"{hint}{dynamic}"
        ) from error


def _import_bisector() -> None:
    """Imports what torch imports while it records, so that it leaves no folder in TMPDIR and no environment variable.

    Its bisection of compiler faults looks once, at its import, for a file in torch's cache, and makes that folder.
    """
    name = "torch._inductor.compiler_bisector"
    if name not in sys.modules and INDUCTOR_CACHE not in os.environ:
        with tempfile.TemporaryDirectory(prefix="ghostdeploy-torch-") as folder:
            os.environ[INDUCTOR_CACHE] = folder
            try:
                importlib.import_module(name)
            finally:
                os.environ.pop(INDUCTOR_CACHE, None)


def _graph_module(program: torch.export.ExportedProgram) -> fx.GraphModule:
    recorded = program.module(check_guards=False)
    assert isinstance(recorded, fx.GraphModule)
    return recorded


def make_functional(recorded: fx.GraphModule) -> bool:
    """Replaces in-place calls; returns False, possibly half done, where shared memory forbids the simple rule."""
    order = {node: index for index, node in enumerate(recorded.graph.nodes)}
    for node, place in order.items():
        target: Any = node.target
        if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
            continue
        functional = _functional(target)
        source = node.args[0] if node.args else None
        if functional is None or not isinstance(source, fx.Node):
            return False
        if op_name(node) != "detach_":
            if _is_shared(source, node, order):
                return False
            later = {user for user in source.users if order[user] > place}
            source.replace_all_uses_with(node, delete_user_cb=lambda user, later=later: user in later)  # type: ignore[misc]
        node.target = functional
    return True


def _drop_state_updates(recorded: fx.GraphModule) -> None:
    """Erases writes to the module's own buffers, left by functionalisation: inference keeps none."""
    for node in list(recorded.graph.nodes):
        target = node.args[0] if op_name(node) == "copy_" and not node.users else None
        if isinstance(target, fx.Node) and target.op == "get_attr":
            recorded.graph.erase_node(node)


def _functional(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """Returns the overload without the trailing underscore."""
    name = target._schema.name.removeprefix("aten::")
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    overload: torch._ops.OpOverload | None = getattr(packet, target._overloadname, None)
    return None if overload is None or overload._schema.is_mutable else overload


def _is_shared(source: fx.Node, writer: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Returns whether another tensor may look at the memory that `writer` changes."""
    if source.op == "get_attr" or _may_alias(source):
        return True
    return any(_may_alias(user) and order[user] < order[writer] for user in source.users)


def _may_alias(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return node.op == "call_function"
    return op_name(node) in _MAY_ALIAS or any(r.alias_info is not None for r in node.target._schema.returns)

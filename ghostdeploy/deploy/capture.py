"""From a module to a plain graph of ATen calls.

`torch.export` records what the module does for inputs like the example; the result is normalised so that a pass sees
one spelling of everything: no guard calls, no in-place operations. A node's shape is what the last run left in
`meta["shape"]`, see `ghostdeploy.deploy.fold`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import fx

from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn


def capture(module: nn.Module, example: tuple[Tensor, ...], *, dynamic_batch: bool = False) -> fx.GraphModule:
    """Records a module as a graph of functional ATen calls.

    Args:
        module: Any module `torch.export` can record; it is copied, not changed, and recorded in eval mode.
        example: Its inputs, first dimension the batch.
        dynamic_batch: Leave the batch free; the example then needs at least two images.

    Raises:
        CheckpointError: `torch.export` cannot record it.
    """
    module = copy.deepcopy(module).eval()
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example) if dynamic_batch else None
    try:
        with torch.no_grad():
            program = torch.export.export(module, example, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises errors of a dozen unrelated classes
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"torch.export cannot record {type(module).__name__}: {reason[:300]}",
            hint="remove data-dependent control flow, or try without --batch dynamic; -v shows torch's own report",
        ) from error
    graph_module = program.module(check_guards=False)
    _make_functional(graph_module)
    return graph_module


def _make_functional(graph_module: fx.GraphModule) -> None:
    """Replaces `y = op_(x)` by `y = op(x)`, later readers of x by readers of y."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_module" or (node.op == "call_function" and "_assert" in str(node.target)):
            if not node.users:
                graph.erase_node(node)
            continue
        functional = _functional(node.target) if node.op == "call_function" else None
        if functional is not None:
            node.target = functional
            source = node.args[0]
            assert isinstance(source, fx.Node)
            later = {user for user in source.users if user is not node and node < user}
            source.replace_all_uses_with(node, delete_user_cb=lambda user, later=later: user in later)
    graph.eliminate_dead_code()
    graph_module.recompile()


def _functional(target: object) -> torch._ops.OpOverload | None:
    """Returns the overload without the trailing underscore, None for an operation that is functional already."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten" or not target._schema.is_mutable:
        return None
    name = target._schema.name.removeprefix("aten::")
    if not name.endswith("_"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    overload: torch._ops.OpOverload | None = getattr(packet, target._overloadname, None)
    return overload

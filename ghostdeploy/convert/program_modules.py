"""Which PyTorch module a node of a saved program was recorded in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx


def module_of(node: fx.Node) -> str:
    """Returns the dotted name of the module that a node was recorded in."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return paths[-1].removeprefix("network.") if paths else "the model itself"

"""Which PyTorch module a layer of an exported graph comes from, and a node of the program that was recorded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import fx

_WEIGHT_SUFFIX = re.compile(r"[._]weight(_\d+)?$")
_PIXEL_PREFIX = re.compile(r"^network[._]")


def dotted_names(modules: Iterable[str]) -> dict[str, str]:
    """Returns modules by their names with underscores; two that differ only in dots stay with underscores."""
    found: dict[str, str] = {}
    for module in dict.fromkeys(modules):
        flat = module.replace(".", "_")
        found[flat] = flat if flat in found else module
    return found


def module_of(weight: str, dotted: dict[str, str]) -> str | None:
    """Returns the module that a weight belongs to.

    Torch writes `blocks_3_0_conv_weight` or `blocks.3.0.conv.weight`, a pass may append `_1`, and `network_` precedes
    where normalisation is part of the graph.

    Args:
        weight: Name of the initializer.
        dotted: See `dotted_names`.

    Returns:
        The module that leaves the shortest rest of the name; else the name without `weight`; None when it does not end
        with that either.
    """
    bare = _PIXEL_PREFIX.sub("", weight)
    rests: dict[int, str] = {}
    for flat in (bare.replace(".", "_"), weight.replace(".", "_")):
        ends = [match.start() for match in re.finditer("_", flat) if flat[: match.start()] in dotted]
        rests |= {len(flat) - end: dotted[flat[:end]] for end in ends}
    if rests:
        return rests[min(rests)]
    ending = _WEIGHT_SUFFIX.search(bare)
    return bare[: ending.start()] or None if ending else None


def numbered(module: str, taken: set[str]) -> str:
    """Returns a name that is not taken: the module's, `#2` behind it at its second call."""
    number, name = 1, module
    while name in taken:
        number += 1
        name = f"{module}#{number}"
    return name


def recorded_in(node: fx.Node) -> str:
    """Returns the dotted name of the module that a node was recorded in."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return paths[-1].removeprefix("network.") if paths else "the model itself"

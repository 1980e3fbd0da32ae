"""The pass protocol: a pass rewrites the graph it is given and returns at how many places.

A pass matches structure (which ATen calls feed which), never class or module names, so it works on third-party
models. It may change the graph in place: the runner owns the copy, compares values, names a faulty pass and writes the
certificate. A call that survives a pass must give what it gave before. One that took the place of another must give
what that one gave: `graph.replace` notes the other's name in `meta["stands_for"]`, a pass notes None where no call gave
the value before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ghostdeploy.deploy.fold.passes.graph import op_name

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True, slots=True)
class PassResult:
    """What one pass did."""

    module: fx.GraphModule
    sites: int
    """Places changed; 0 means that the pass did not apply."""


@runtime_checkable
class Pass(Protocol):
    """One exact rewriting."""

    name: str

    def run(self, module: fx.GraphModule) -> PassResult:
        """Rewrites `module`, whose nodes carry `meta["shape"]` and `meta["dtype"]` of the last run."""
        ...


def may_apply(step: Pass, module: fx.GraphModule) -> bool:
    """Returns whether the graph has a call that the pass looks for; one that names no `operations` may always apply."""
    operations: frozenset[str] = getattr(step, "operations", frozenset())
    return not operations or any(op_name(node) in operations for node in module.graph.nodes)

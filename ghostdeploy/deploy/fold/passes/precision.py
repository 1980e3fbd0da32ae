"""Runs a captured graph and records the result of each node.

`run` proves a pass site by site. With a the value of a call before the pass and b after it, both computed from equal
arguments, the error of the site is max |a − b| / max |a|; readers continue with a.

A pass may change the result of a call, and record that in the node's meta, per channel (dimension 1): `scaled`, factors
f_c, means that the call now gives f_c·a_c; `kept`, positions, that channel c is now channel kept_c, and that others
were added. Then f·a at its new place takes the place of a, in the comparison and for the readers, who get the added
channels as computed. Outputs of the graph are compared as they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ghostdeploy.deploy.fold.passes.graph import op_name

_UNWRITTEN = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"})
"""What these give is written later, or read for its shape only."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a graph."""

    outputs: list[Tensor]
    values: dict[str, Tensor]
    """What each call gave, by node name; forced ones as they were forced."""
    error: float
    """Largest relative error of a forced call, or of an output."""
    where: str
    """Name of that call."""


def run(module: fx.GraphModule, inputs: tuple[Tensor, ...], before: Run | None = None) -> Run:
    """Runs the graph and leaves `shape` and `dtype` of each result in its node's meta.

    Args:
        module: The graph.
        inputs: Its inputs.
        before: The run of the same graph before a pass. A call is compared with the value of the call it stands for
            (itself, or what `meta["stands_for"]` names, changed as `scaled` and `kept` say), and its readers get that
            value; the notes are removed.
    """
    runner = _Forcing(module, before.values if before else {})
    with torch.no_grad():
        result = runner.run(*pytree.tree_leaves(inputs))
    outputs = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    error, where = runner.error, runner.where
    if before is not None and (last := relative_error(before.outputs, outputs)) > error:
        error, where = last, "the output"
    return Run(outputs, runner.values, error, where)


def relative_error(before: list[Tensor], after: list[Tensor]) -> float:
    """Returns max |a − b| / max |a|, the largest over the pairs; infinity for another shape or a value not finite."""
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        if a.shape != b.shape:
            return math.inf
        if a.numel() and not torch.equal(a, b):
            a, b = _numbers(a), _numbers(b)
            difference, largest = float((a - b).abs().max()), float(a.abs().max())
            error = difference / largest if largest > 0 else difference
            worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst


def _numbers(tensor: Tensor) -> Tensor:
    """Returns real numbers in float64: masks have no difference, complex ones no order."""
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()


class _Forcing(fx.Interpreter):
    """Gives every reader the value that its source had before the pass, so that each site is judged alone."""

    def __init__(self, module: fx.GraphModule, known: dict[str, Tensor]) -> None:
        super().__init__(module)
        self._known = known
        self.values: dict[str, Tensor] = {}
        self.error, self.where = 0.0, "nothing"

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        stands_for = node.meta.pop("stands_for", node.name)
        factors, kept = node.meta.pop("scaled", None), node.meta.pop("kept", None)
        if not isinstance(result, Tensor):
            return result
        node.meta["shape"], node.meta["dtype"] = tuple(result.shape), result.dtype
        if node.op != "call_function":
            return result
        if stands_for in self._known:
            expected = _scaled(self._known[stands_for], factors)
            expected = expected if kept is None else result.index_copy(1, kept, expected)
            error = 0.0 if op_name(node) in _UNWRITTEN else relative_error([expected], [result])
            if error > self.error:
                self.error, self.where = error, node.name
            result = expected
        self.values[node.name] = result
        return result


def _scaled(value: Tensor, factors: Tensor | None) -> Tensor:
    """Multiplies dimension 1 by its factors (channels,)."""
    return value if factors is None else value * factors.to(value).reshape(-1, *(1,) * (value.ndim - 2))

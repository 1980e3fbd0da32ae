"""The proof in float64: pass by pass, then of the finished graph, run as a device runs it.

`apply`: a pass rewrites a graph that holds float64 weights; the graph runs again on the example, with the values and
the memory layout that readers had before the pass, and the largest error of a call or an output (see `precision.run`)
must stay below `FOLD_RELATIVE_ERROR`.

For the finished graph nothing is handed over. With a the outputs of the graph before the passes and b those after, both
in float64,

    error = max |a − b| / max |a|   ≤ FINISHED_RELATIVE_ERROR

on the example, and on a second input that no pass has seen (noise of the example's mean and spread), of one more image
where the batch is free. Outputs that are not numbers of this kind (classes, masks) may differ in one element of a
hundred: round-off decides between equals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ghostdeploy.bundle.manifest import PassRecord
from ghostdeploy.deploy.fold.passes.graph import prune
from ghostdeploy.deploy.fold.passes.precision import Run, relative_error, run
from ghostdeploy.deploy.prove.tolerance import FINISHED_RELATIVE_ERROR, FOLD_RELATIVE_ERROR
from ghostdeploy.errors import GateFailed

if TYPE_CHECKING:
    from torch import fx

    from ghostdeploy.deploy.fold.passes.base import Pass

    Inputs = tuple[Tensor, ...]

_REPORT = "this is a bug in the pass: please report it with the model"


def apply(
    step: Pass, graph: fx.GraphModule, inputs: tuple[Tensor, ...], before: Run
) -> tuple[fx.GraphModule, Run, PassRecord]:
    """Applies one pass and compares every call and output with `before`.

    Args:
        step: The pass.
        graph: In float64, changed in place.
        inputs: In float64.
        before: The run of `graph` on `inputs`.

    Returns:
        The rewritten graph, its run, and the record for the certificate.

    Raises:
        GateFailed: The pass changed a call or an output by more than `FOLD_RELATIVE_ERROR`.
    """
    result, error, last = step.run(graph), 0.0, before
    if result.sites:
        graph = prune(result.module)
        try:
            last = run(graph, inputs, before)
        except RuntimeError as failure:
            reason = str(failure).splitlines()[0]
            raise GateFailed(
                f"fold pass {step.name} produced a graph that cannot run: {reason}", hint=_REPORT
            ) from failure
        error = last.error
    if not error <= FOLD_RELATIVE_ERROR:  # written so that NaN fails
        raise GateFailed(
            f"fold pass {step.name} changed the output by {error:.1e} of its size at {last.where}, "
            f"expected at most {FOLD_RELATIVE_ERROR:.0e}",
            hint=_REPORT,
        )
    return graph, last, PassRecord(name=step.name, sites=result.sites, max_relative_error=error)


_FLIPPED = 0.01
"""Share of elements of an integer output that may differ."""
_REPORT = "this is a bug in a pass: please report it with the model"


class Trials:
    """What a graph gives before its passes, and whether it gives the same after them.

    Args:
        graph: In float64, before the passes.
        inputs: The example, in float64.
    """

    def __init__(self, graph: fx.GraphModule, inputs: Inputs) -> None:
        other = second(inputs)
        if has_free_batch(graph):
            other = tuple(torch.cat([tensor, tensor[:1]]) for tensor in other)
        self._trials = [(one, outputs) for one in (inputs, other) if (outputs := _run(graph, one)) is not None]

    def prove(self, graph: fx.GraphModule) -> None:
        """Runs the finished graph.

        Raises:
            GateFailed: It cannot run, or gives something else.
        """
        for inputs, before in self._trials:
            images = len(inputs[0]) if inputs else 0
            try:
                after = _run(graph, inputs)
            except RuntimeError as failure:
                reason = str(failure).splitlines()[0]
                raise GateFailed(f"the folded graph cannot run on {images} images: {reason}", hint=_REPORT) from failure
            error = _difference(before, after)
            if not error <= FINISHED_RELATIVE_ERROR:  # written so that NaN fails
                raise GateFailed(
                    f"the folded graph differs from the model by {error:.1e} of the output on {images} images, "
                    f"expected at most {FINISHED_RELATIVE_ERROR:.0e}",
                    hint=_REPORT,
                )


def second(inputs: Inputs) -> Inputs:
    """Returns inputs of the same shapes that differ in every element: seeded noise, and integers in reverse order."""
    source = torch.Generator().manual_seed(0)

    def other(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor.flip(tuple(range(tensor.ndim)))
        spread = float(tensor.std(correction=0)) or 1.0
        noise = torch.randn(tensor.shape, generator=source, dtype=tensor.dtype)
        return noise * spread + tensor.mean()

    return tuple(other(tensor) for tensor in inputs)


def has_free_batch(graph: fx.GraphModule) -> bool:
    """Returns whether `torch.export` left the first dimension of the inputs free."""
    recorded = [node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder"]
    return any(isinstance(value, Tensor) and not isinstance(value.shape[0], int) for value in recorded if value.ndim)


def _run(graph: fx.GraphModule, inputs: Inputs) -> list[Tensor] | None:
    """Returns the outputs; None where some are not finite, which proves nothing about the passes."""
    with torch.no_grad():
        outputs = [leaf for leaf in pytree.tree_leaves(graph(*inputs)) if isinstance(leaf, Tensor)]
    return outputs if all(bool(torch.isfinite(leaf).all()) for leaf in outputs) else None


def _difference(before: list[Tensor], after: list[Tensor] | None) -> float:
    if after is None or [leaf.shape for leaf in after] != [leaf.shape for leaf in before]:
        return float("inf")
    error = 0.0
    for a, b in zip(before, after, strict=True):
        if a.is_floating_point() or a.is_complex():
            error = max(error, relative_error([a], [b]))
        elif a.numel() and (flipped := float((a != b).double().mean())) > _FLIPPED:
            error = max(error, flipped)
    return error

"""One pass, applied and proven.

A pass rewrites a graph that holds float64 weights; the graph runs again on the example, and the largest error of a call
or an output (see `precision.run`) must stay below `FOLD_RELATIVE_ERROR`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.bundle.manifest import PassRecord
from ghostdeploy.deploy.fold.passes.graph import prune
from ghostdeploy.deploy.fold.passes.precision import Run, run
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.errors import GateFailed

if TYPE_CHECKING:
    from torch import Tensor, fx

    from ghostdeploy.deploy.fold.passes.base import Pass

_REPORT = "this is a fault of the pass: please report the model"


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
            raise GateFailed(f"fold pass {step.name} made a graph that cannot run: {reason}", hint=_REPORT) from failure
        error = last.error
    if not error <= FOLD_RELATIVE_ERROR:  # written so that NaN fails
        raise GateFailed(
            f"fold pass {step.name} changed the output by {error:.1e} of its size at {last.where}, "
            f"expected at most {FOLD_RELATIVE_ERROR:.0e}",
            hint=_REPORT,
        )
    return graph, last, PassRecord(name=step.name, sites=result.sites, max_relative_error=error)

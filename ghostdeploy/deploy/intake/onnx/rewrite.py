"""The passes on an ONNX graph, one after the other, each proven on real images before the next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ghostdeploy.batches import by_name
from ghostdeploy.bundle.manifest import PassRecord
from ghostdeploy.deploy.intake.onnx.fold_batch_norm import FoldBatchNorm
from ghostdeploy.deploy.intake.onnx.fold_constants import FoldConstants
from ghostdeploy.deploy.intake.onnx.graph import Graph
from ghostdeploy.deploy.intake.onnx.merge_branches import MergeBranches
from ghostdeploy.deploy.intake.onnx.opset import opset_of
from ghostdeploy.deploy.intake.onnx.passes import site_error
from ghostdeploy.deploy.intake.onnx.remove_no_ops import RemoveNoOps
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.errors import GateFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.intake.onnx.passes import OnnxPass, Site

_log = logging.getLogger("ghostdeploy")


def default_passes() -> tuple[OnnxPass, ...]:
    """Returns the passes in their order."""
    return RemoveNoOps(), FoldConstants(), RemoveNoOps(), FoldBatchNorm(), MergeBranches()


def rewrite(
    model: onnx.ModelProto, image: Batch, passes: Sequence[OnnxPass] | None = None
) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """Rewrites a graph and proves each pass.

    Args:
        model: Shapes inferred.
        image: Model inputs to prove on.
        passes: What to run instead of `default_passes()`.

    Returns:
        The rewritten graph with inferred shapes, and the certificate.

    Raises:
        GateFailed: A site differs by more than `FOLD_RELATIVE_ERROR`.
    """
    records = []
    for step in default_passes() if passes is None else passes:
        graph = Graph(model)
        count, sites = step.run(graph)
        error = 0.0
        if sites:
            error = _prove(step.name, sites, model, image)
        elif count and not _same_bits(model, graph.model(), image):
            _log.warning("%s is left out: it changes the outputs", step.name)
            records.append(PassRecord(name=step.name, sites=0, max_relative_error=0.0))
            continue
        if count:
            model = onnx.shape_inference.infer_shapes(graph.model(), data_prop=True)
        records.append(PassRecord(name=step.name, sites=count, max_relative_error=error))
    return model, _one_per_name(records)


def _one_per_name(records: Sequence[PassRecord]) -> tuple[PassRecord, ...]:
    """Joins the records of a pass that ran twice."""
    found: dict[str, PassRecord] = {}
    for record in records:
        before = found.get(record.name, PassRecord(name=record.name, sites=0, max_relative_error=0.0))
        error = max(before.max_relative_error, record.max_relative_error)
        found[record.name] = PassRecord(name=record.name, sites=before.sites + record.sites, max_relative_error=error)
    return tuple(found.values())


def _prove(name: str, sites: Sequence[Site], before: onnx.ModelProto, image: Batch) -> float:
    values = activations(before, {site.source for site in sites}, image)
    worst = 0.0
    for site in sites:
        error = site_error(site, values[site.source].astype(np.float64), opset_of(before))
        if not error <= FOLD_RELATIVE_ERROR:
            raise GateFailed(
                f"fold pass {name} changed {site.output} by {error:.1e} of its size, expected at most "
                f"{FOLD_RELATIVE_ERROR:.0e}",
                hint="this is a bug in the pass: please report it with the model",
            )
        worst = max(worst, error)
    return worst


def activations(model: onnx.ModelProto, names: Iterable[str], batch: Batch) -> dict[str, NDArray[Any]]:
    """Returns tensors inside a graph, as ONNX Runtime computes them without optimisation."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    inputs = [value.name for value in model.graph.input]
    wanted = sorted(set(names).difference(inputs))
    known = {value.name for value in model.graph.output}
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted if name not in known)
    runner = GraphRunner(exposed)
    return dict(zip(runner.outputs, runner(batch), strict=True)) | by_name(batch, inputs)


def _same_bits(before: onnx.ModelProto, after: onnx.ModelProto, batch: Batch) -> bool:
    outputs = [GraphRunner(model, packed=False)(batch) for model in (before, after)]
    return all(np.array_equal(a, b) for a, b in zip(*outputs, strict=True))

"""The proof of a fresh bundle: the outputs of its engine on this machine are compared with the reference.

It measures parity with the golden vectors, accuracy on labelled images, and for quantized payloads the agreement with
the float model on real images, the execution gap, and the share of the work that is done in INT8. One failed gate fails
the bundle; one that cannot be decided leaves it unverified. Where the engine cannot run here, the payload's own graph
runs in float instead, and every figure is marked as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.manifest import Accuracy, Agreement
from ghostdeploy.deploy.export.executor import executor
from ghostdeploy.deploy.prove import evaluate, judge, measuring, parity, replay
from ghostdeploy.deploy.prove.class_order import near_chance
from ghostdeploy.deploy.prove.execution import execution_of
from ghostdeploy.deploy.prove.fidelity import measure
from ghostdeploy.deploy.prove.tolerance import VALUES_SQNR_DB
from ghostdeploy.deploy.quantize.recipe import read_quantized
from ghostdeploy.machine import instruction_set
from ghostdeploy.statistics import wilson
from ghostdeploy.tasks.classify import names_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.fidelity import Fidelity, Measured
    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.bundle.manifest import Execution, Manifest, Parity, Replay
    from ghostdeploy.deploy.export.executor import Executor
    from ghostdeploy.deploy.export.packaging import Converted
    from ghostdeploy.deploy.intake.records import ReferenceRun
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.targets import Target
    from ghostdeploy.tasks.base import Task
    from ghostdeploy.tasks.measure import Measure


def decide_verdict(bundle: Bundle, converted: Converted, seen: ReferenceRun, run: ExportRun) -> Manifest:
    """Returns the completed manifest.

    Args:
        bundle: Complete on disk but for the verdict.
        converted: Its payload.
        seen: What the reference said.
        run: The export.
    """
    proofs: dict[str, Any] = {}
    replays: tuple[Replay, ...] = ()
    interface, evidence = converted.interface, seen.evidence
    with executor(bundle, converted.row) as engine:
        outputs = engine.infer(interface.golden_inputs)
        found = parity.compare(outputs, interface.golden_outputs, run.config.precision)
        found = msgspec.structs.replace(found, how=engine.how, reference_error=seen.error)
        if engine.executes and (simulated := bundle.simulated()) is not None:
            replays = replay.compare_with_simulation(outputs, simulated, interface.golden_outputs)
        gate: Arrays | None = None
        if evidence is not None:
            gate = _collect(engine, evidence.gate_batches(interface.preprocess), evidence.reference)
            record = _PROOFS[seen.task.proof](gate, evidence, found)
            proofs[seen.task.proof] = msgspec.structs.replace(record, how=engine.how)
            if converted.quantizer is not None and engine.executes:
                proofs["execution"] = _execution(gate, evidence, converted.row, converted.quantizer, seen.task)
        accuracy = _accuracy(engine, gate, seen, interface.preprocess, run)
        if seen.measure is not None:
            whole = gate if evidence is not None and evidence.labelled is not None else None
            proofs["measured"] = _measured(engine, whole, seen.measure, seen, interface.preprocess, run)
        unverified = engine.unverified_because
    manifest = msgspec.structs.replace(bundle.manifest, parity=found, accuracy=accuracy, replay=replays, **proofs)
    return judge.conclude(manifest, unverified)


def _collect(engine: Executor, batches: Iterable[Batch], names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Returns the named outputs for all batches."""
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for batch in batches:
        outputs = engine.run(batch)
        for name, parts in found.items():
            parts.append(outputs[name])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _agreement(outputs: Arrays, evidence: Evidence, found: Parity) -> Agreement:
    (logits,), (reference,) = outputs.values(), evidence.reference_outputs().values()
    return agree(
        logits,
        reference,
        source=evidence.gate_source,
        required=_required(evidence, found),
        required_db=evidence.limits.sqnr_db if evidence.limits.values_judge else None,
        certain=found.tolerance.agreement_ci95_low is not None,
    )


def _fidelity(outputs: Arrays, evidence: Evidence, found: Parity) -> Fidelity:
    return measure(
        evidence.task,
        outputs,
        evidence.reference_outputs(),
        source=evidence.gate_source,
        required_db=evidence.limits.sqnr_db,
        required_agreement=None if evidence.limits.agreement is None else _required(evidence, found),
    )


_PROOFS: dict[str, Callable[[Arrays, Evidence, Parity], Agreement | Fidelity]] = {
    "agreement": _agreement,
    "fidelity": _fidelity,
}


def _required(evidence: Evidence, found: Parity) -> float:
    """Returns the agreement that this precision needs, or what was asked for where that is more."""
    bound, share = found.tolerance.agreement_ci95_low, found.tolerance.top1_agreement
    required = share if bound is None else bound
    assert required is not None  # the rows of precisions that are judged on images set one
    return max(required, evidence.limits.agreement or 0.0)


def _execution(outputs: Arrays, evidence: Evidence, row: Target, quantizer: Path, task: Task) -> Execution:
    with np.load(quantizer / "gate.npz", allow_pickle=False) as archive:
        simulated = {name: archive[name] for name in archive.files}
    made = read_quantized(quantizer)
    return execution_of(
        task,
        outputs,
        simulated,
        evidence.reference_outputs(),
        isa=instruction_set(row.instruction_limit) if row.simulator is None else "a simulator",
        own_rounding=row.simulator is not None,
        saturable_channels=made.saturable_channels,
    )


def _measured(
    engine: Executor,
    outputs: Arrays | None,
    reference: Measure,
    seen: ReferenceRun,
    preprocess: Preprocess,
    run: ExportRun,
) -> Measured:
    """Measures the artefact; `outputs` are those for the whole set, where the gate looked at it."""
    if outputs is None:
        ours = measuring.measure(engine.run, seen.task, reference.data, preprocess, seen.labels, run.stages)
    else:
        ours = measuring.of_outputs(outputs, seen.task, reference.data, preprocess, seen.labels)
    return msgspec.structs.replace(measuring.compare(ours, reference, run.config.max_drop), how=engine.how)


def _accuracy(
    engine: Executor, gate_outputs: Arrays | None, seen: ReferenceRun, preprocess: Preprocess, run: ExportRun
) -> Accuracy | None:
    data, reference, classes = seen.data, seen.predictions, len(seen.labels)
    if data is None or reference is None:
        return None
    name = next(iter(seen.interface.golden_outputs))
    if gate_outputs is not None and len(gate_outputs[name]) == len(data):  # the gate looked at the whole set
        ours = evaluate.Predictions.of(gate_outputs[name], reference.labels)
    else:
        ours = evaluate.predict(lambda batch: engine.run(batch)[name], data, preprocess, classes, run.stages)
    note = near_chance(reference.top1_share, data, classes, who="the float model")
    return msgspec.structs.replace(
        gate(ours, reference, run.config.top1_drop),
        how=engine.how,
        class_order=data.class_order,
        left_out=data.left_out,
        notes=() if note is None else (note,),
    )


def gate(ours: evaluate.Predictions, reference: evaluate.Predictions, max_drop: float) -> Accuracy:
    """Measures the accuracy of an artefact against the float reference.

    Args:
        ours: Predictions of the artefact.
        reference: Predictions of the unfolded float32 PyTorch model.
        max_drop: Largest allowed drop of top-1, as a share.
    """
    found = evaluate.compare(ours, reference, "pytorch float32", max_drop=max_drop)
    return Accuracy(
        p_value=found.p_value,
        decided=found.answer != "not enough images to decide",
        top1=ours.top1_share,
        top5=ours.top5_share,
        count=len(ours.labels),
        reference_top1=found.reference_top1,
        drop=found.drop,
        drop_ci95=found.drop_ci95,
        max_drop=max_drop,
        verdict=judge.accuracy_verdict(found.drop, found.drop_ci95, max_drop, ours.non_finite),
        non_finite=ours.non_finite,
    )


def agree(
    logits: NDArray[Any],
    reference: NDArray[Any],
    *,
    source: str,
    required: float,
    required_db: float | None = None,
    certain: bool = True,
) -> Agreement:
    """Measures the agreement of an artefact with the float reference on real images.

    One column has no top-1 class, and only the user knows whether its sign decides: there the values are judged.
    Where the reference gives one class for every image, so would anything that is broken: the values are judged too.

    Args:
        logits: The artefact's (N, classes).
        reference: The reference's (N, classes).
        source: Where the images came from.
        required: What passes.
        required_db: What the logits must reach; None is `VALUES_SQNR_DB` where classes prove nothing.
        certain: The lower 95 % bound must reach it, and where only the upper one does, more images must decide. Else
            the share itself must.
    """
    count = len(reference)
    finite = evaluate.finite_rows(logits)
    same = int(((logits.argmax(axis=1) == reference.argmax(axis=1)) & finite).sum())
    low, high = wilson(same, count)
    rows = [(np.asarray(logits, np.float64), np.asarray(reference, np.float64))]
    ratio = parity.sqnr_db(rows) if finite.all() else parity.NOTHING_DB
    one_column, classes = reference.shape[1:] == (1,), names_classes(reference)
    judged = (1.0, 1.0) if one_column else ((low, high) if certain else (same / count, same / count))
    least_db = required_db or (None if classes else VALUES_SQNR_DB)
    near = least_db is None or ratio is None or ratio >= least_db
    proves_nothing = not classes and same == count
    return Agreement(
        source=source,
        count=count,
        top1=None if proves_nothing else same / count,
        top1_ci95=None if proves_nothing else (low, high),
        sqnr_db=ratio,
        required=required,
        required_sqnr_db=least_db,
        reference_class=None if classes or one_column else int(reference[0].argmax()),
        verdict=judge.agreement_verdict(judged, required, int((~finite).sum()), values_near=near),
        non_finite=int((~finite).sum()),
    )

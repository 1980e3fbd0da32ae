"""The proof of a fresh bundle: the outputs of its engine on this machine are compared with the reference.

It measures parity with the golden vectors, accuracy on labelled images, and for quantized payloads the agreement with
the float model on real images, the execution gap, and the share of the work that is done in INT8. One failed gate fails
the bundle; one that cannot be decided leaves it unverified. Where the engine cannot run here, the payload's own graph
runs in float instead, and every figure is marked as such.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy import targets
from ghostdeploy.bundle.manifest import Accuracy, Agreement
from ghostdeploy.deploy.prove import evaluate, judge, parity, replay
from ghostdeploy.deploy.prove.class_order import near_chance
from ghostdeploy.deploy.prove.execution import compare_execution
from ghostdeploy.deploy.prove.tolerance import VALUES_SQNR_DB
from ghostdeploy.deploy.quantize.recipe import read_quantized
from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.machine import instruction_set
from ghostdeploy.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.bundle.manifest import Execution, Manifest, Parity, Replay
    from ghostdeploy.deploy.export.packaging import Converted
    from ghostdeploy.deploy.intake.records import ReferenceRun
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.targets import Target

SIMULATED = "simulated in float"


class Executor:
    """Whatever gives the outputs of a payload: its runtime, or the float simulation of its graph.

    Attributes:
        infer: Arrays by input name → arrays by output name.
        logits: One model input → first output.
        unverified_because: Why the engine did not run; None when it did.
    """

    def __init__(
        self,
        infer: Callable[[Arrays], Arrays],
        logits: Callable[[NDArray[Any]], NDArray[Any]],
        unverified_because: str | None = None,
    ) -> None:
        self.infer = infer
        self.logits = logits
        self.unverified_because = unverified_because

    @property
    def how(self) -> Any:
        """For the manifest's records."""
        return "executed" if self.unverified_because is None else SIMULATED


@contextmanager
def executor(bundle: Bundle, row: Target) -> Iterator[Executor]:
    """Gives the bundle's runtime, or its simulation where the hardware is missing and the row allows it."""
    from ghostdeploy.runtimes import load

    try:
        runtime = load(bundle.path)
    except UnsupportedHardware as error:
        if row.simulation is None:
            raise
        missing = error.message if targets.has_device(row) else f"no {row.device}"
        yield simulation(bundle, row.simulation, f"built, not executed: {missing}")
        return
    with runtime:
        yield Executor(runtime.infer, runtime)


def simulation(bundle: Bundle, graph: str, unverified_because: str) -> Executor:
    """Returns the executor that runs an ONNX graph of the bundle as it is written, without fusion."""
    import onnx

    from ghostdeploy.bundle.external_data import refuse_external_data
    from ghostdeploy.deploy.quantize.simulate import GraphRunner

    data = bundle.read(graph)
    refuse_external_data(data, str(bundle.path))
    runner = GraphRunner(onnx.load_model_from_string(data))

    def infer(inputs: Arrays) -> Arrays:
        return dict(zip(runner.outputs, runner(next(iter(inputs.values()))), strict=True))

    return Executor(infer, lambda batch: runner(batch)[0], unverified_because)


def decide_verdict(bundle: Bundle, converted: Converted, seen: ReferenceRun, run: ExportRun) -> Manifest:
    """Returns the completed manifest.

    Args:
        bundle: Complete on disk but for the verdict.
        converted: Its payload.
        seen: What the reference said.
        run: The export.
    """
    agreement: Agreement | None = None
    execution: Execution | None = None
    replays: tuple[Replay, ...] = ()
    interface = converted.interface
    with executor(bundle, converted.row) as engine:
        outputs = engine.infer(interface.golden_inputs)
        found = parity.compare(outputs, interface.golden_outputs, run.config.precision)
        found = msgspec.structs.replace(found, how=engine.how)
        if engine.unverified_because is None and (simulated := bundle.simulated()) is not None:
            replays = replay.compare_with_simulation(outputs, simulated, interface.golden_outputs)
        logits = None
        if seen.evidence is not None:
            batches = seen.evidence.gate_batches(interface.preprocess)
            logits = np.concatenate([engine.logits(batch) for batch in batches])
            agreement = _agreement(logits, seen.evidence, found, engine)
            if converted.quantizer is not None and engine.unverified_because is None:
                execution = _execution(logits, converted.row, converted.quantizer)
        accuracy = _accuracy(engine, logits, seen, interface.preprocess, run)
        unverified = engine.unverified_because
    manifest = msgspec.structs.replace(
        bundle.manifest, parity=found, accuracy=accuracy, agreement=agreement, execution=execution, replay=replays
    )
    return judge.conclude(manifest, unverified)


def _agreement(logits: NDArray[Any], evidence: Evidence, found: Parity, engine: Executor) -> Agreement:
    bound, share = found.tolerance.agreement_ci95_low, found.tolerance.top1_agreement
    required = share if bound is None else bound
    assert required is not None  # the rows of precisions that are judged on images set one
    measured = agree(
        logits,
        evidence.reference_logits(),
        source=evidence.gate_source,
        required=required,
        certain=bound is not None,
    )
    return msgspec.structs.replace(measured, how=engine.how)


def _execution(logits: NDArray[Any], row: Target, quantizer: Path) -> Execution:
    simulated = np.load(quantizer / "gate.npy", allow_pickle=False)
    made = read_quantized(quantizer)
    return compare_execution(
        logits, simulated, isa=instruction_set(row.instruction_limit), saturable_channels=made.saturable_channels
    )


def _accuracy(
    engine: Executor, gate_logits: NDArray[Any] | None, seen: ReferenceRun, preprocess: Preprocess, run: ExportRun
) -> Accuracy | None:
    data, reference, classes = seen.data, seen.predictions, len(seen.labels)
    if data is None or reference is None:
        return None
    if gate_logits is not None and len(gate_logits) == len(data):  # the gate looked at the whole set
        ours = evaluate.Predictions.of(gate_logits, reference.labels)
    else:
        ours = evaluate.predict(engine.logits, data, preprocess, classes, run.stages)
    note = near_chance(reference.top1_share, data, classes, who="the float model")
    return msgspec.structs.replace(
        gate(ours, reference, run.config.max_drop),
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
    logits: NDArray[Any], reference: NDArray[Any], *, source: str, required: float, certain: bool = True
) -> Agreement:
    """Measures the agreement of an artefact with the float reference on real images.

    One column has no top-1 class, and only the user knows whether its sign decides: there the values are judged.
    Where the reference gives one class for every image, so would anything that is broken: the values are judged too.

    Args:
        logits: The artefact's (N, classes).
        reference: The reference's (N, classes).
        source: Where the images came from.
        required: What passes.
        certain: The lower 95 % bound must reach it, and where only the upper one does, more images must decide. Else
            the share itself must.
    """
    count = len(reference)
    finite = evaluate.finite_rows(logits)
    same = int(((logits.argmax(axis=1) == reference.argmax(axis=1)) & finite).sum())
    low, high = wilson(same, count)
    rows = [(np.asarray(logits, np.float64), np.asarray(reference, np.float64))]
    ratio = parity.sqnr_db(rows) if finite.all() else parity.NOTHING_DB
    one_column, classes = reference.shape[1:] == (1,), parity.names_classes(reference)
    judged = (1.0, 1.0) if one_column else ((low, high) if certain else (same / count, same / count))
    values_db = math.inf if classes or ratio is None else ratio
    proves_nothing = not classes and same == count
    return Agreement(
        source=source,
        count=count,
        top1=None if proves_nothing else same / count,
        top1_ci95=None if proves_nothing else (low, high),
        sqnr_db=ratio,
        required=required,
        required_sqnr_db=None if classes else VALUES_SQNR_DB,
        reference_class=None if classes or one_column else int(reference[0].argmax()),
        verdict=judge.agreement_verdict(judged, required, values_db, int((~finite).sum())),
        non_finite=int((~finite).sum()),
    )

"""The execution gap: an INT8 artefact's outputs here, compared with the float simulation of the same graph.

Both run the same quantized network, so they differ only where the engine's integer kernels do: in the rounding of
values on the border of two steps, in what is fused, and in sums that overflow. Simulation s, executed y, (N, classes):

    agreement   share of images with argmax y = argmax s                              ≥ 0.995
    SQNR        10 log10( Σ s² / Σ (y − s)² )                                         ≥ 28 dB
    saturable   output channels whose weights can overflow 16 bits (see saturation)   = 0

The limits and the measurements behind them are in `tolerance`. Where values are judged, and not classes, an output may
be as far from its simulation as that is from the float model f, as in `replay`, though never beyond 20 dB:

    SQNR        10 log10( Σ s² / Σ (y − s)² )     ≥ min(28 dB, max(20 dB, 10 log10( Σ f² / Σ (s − f)² )))

An accelerator rounds in its own way: an Ethos-U, and the kernels that simulate it, round each result twice, once to a
power of two below its step. That turns over 0.1 to 0.2 % of the values of a layer, and decisions with them. So the
outputs of a simulator are judged as values, and their agreement is told.

A network that spreads rounding spreads the engine's as well: two float simulations of one graph of the sample
`ghost_segment`, which differ in the order of sums alone, are 24.6 dB apart, and 22 dB from the float model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.manifest import Execution
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.fidelity import EQUAL_DB, ratio_db
from ghostdeploy.deploy.prove.parity import NOTHING_DB, sqnr_db
from ghostdeploy.deploy.prove.tolerance import EXECUTION_DB, FEW_IMAGES, FORGIVEN_DEVIATIONS
from ghostdeploy.errors import BundleError
from ghostdeploy.tasks.base import finite_images
from ghostdeploy.tasks.classify import names_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.tasks.base import Task


def execution_of(
    task: Task,
    executed: Arrays,
    simulated: Arrays,
    floating: Arrays,
    *,
    isa: str,
    own_rounding: bool = False,
    saturable_channels: int = 0,
) -> Execution:
    """Measures the execution gap of the outputs that a task judges; of several, that of the one nearest to its limit.

    Args:
        task: What the outputs mean.
        executed: What the engine gave, by output.
        simulated: What the same graph gave in float.
        floating: What the float model gave.
        isa: Instruction set of the engine's kernels, see `machine.instruction_set`.
        own_rounding: Values judge for classifiers, too: a simulator, which rounds as its accelerator does.
        saturable_channels: Output channels with unsafe weights, see `saturation`.

    Raises:
        BundleError: The shapes differ.
    """
    judged = task.judged(simulated)
    if task.proof == "agreement":
        (name,) = judged
        record = compare_execution(executed[name], simulated[name], isa=isa, saturable_channels=saturable_channels)
        return _as_values(record, simulated[name], floating[name]) if own_rounding else record
    for name, wanted in judged.items():
        _require_one_shape(executed[name], wanted, name)
    finite = all(finite_images(task.judged(outputs).values()).all() for outputs in (executed, simulated))
    found, required = _nearest(task, executed, simulated, floating) if finite else (NOTHING_DB, EXECUTION_DB)
    sqnr = None if found == EQUAL_DB else found
    return Execution(
        isa=isa,
        count=len(next(iter(judged.values()))),
        agreement=None,
        sqnr_db=sqnr,
        required_db=required,
        saturable_channels=saturable_channels,
        verdict=judge.execution_verdict(1.0, sqnr, saturable_channels, required),
    )


def _as_values(found: Execution, simulated: NDArray[Any], floating: NDArray[Any]) -> Execution:
    """Returns the record of a classifier with the limit and the verdict of values."""
    own = sqnr_db([(np.asarray(simulated, np.float64), np.asarray(floating, np.float64))])
    required = judge.execution_limit(EXECUTION_DB if own is None else own)
    verdict = judge.execution_verdict(1.0, found.sqnr_db, found.saturable_channels, required)
    return msgspec.structs.replace(found, required_db=required, verdict=verdict)


def _nearest(task: Task, executed: Arrays, simulated: Arrays, floating: Arrays) -> tuple[float, float]:
    """Returns SQNR and limit of the output that is nearest to its limit, or the most beyond it."""
    gaps, own = (
        {name: ratio_db(*pair) for name, pair in task.values(*two).items()}
        for two in ((executed, simulated), (simulated, floating))
    )
    limits = {name: judge.execution_limit(own.get(name, EXECUTION_DB)) for name in gaps}
    worst = min(gaps, key=lambda name: gaps[name] - limits[name], default=None)
    return (EQUAL_DB, EXECUTION_DB) if worst is None else (gaps[worst], limits[worst])


def _require_one_shape(executed: NDArray[Any], simulated: NDArray[Any], name: str) -> None:
    if executed.shape != simulated.shape:
        raise BundleError(f"the executed {name} have shape {executed.shape}, the simulated ones {simulated.shape}")


def compare_execution(
    executed: NDArray[Any], simulated: NDArray[Any], *, isa: str, saturable_channels: int = 0
) -> Execution:
    """Measures the execution gap of a classifier.

    Args:
        executed: What the engine gave, (N, classes).
        simulated: What the same graph gave in float, (N, classes).
        isa: Instruction set of the engine's kernels, see `machine.instruction_set`.
        saturable_channels: Output channels with unsafe weights, see `saturation`.

    Returns:
        The record; `agreement` counts every disagreement, the verdict allows for `tolerance`.

    Raises:
        BundleError: The shapes differ.
    """
    _require_one_shape(executed, simulated, "logits")
    got, reference = np.asarray(executed, np.float64), np.asarray(simulated, np.float64)
    finite = bool(np.isfinite(got).all() and np.isfinite(reference).all())
    sqnr = sqnr_db([(got, reference)]) if finite else NOTHING_DB
    same = got.argmax(axis=1) == reference.argmax(axis=1) if finite else np.zeros(len(got), bool)
    kept = same | (margins(reference) <= noise_step(reference)) if len(got) < FEW_IMAGES and finite else same
    return Execution(
        isa=isa,
        count=len(got),
        agreement=None if len(same) and same.all() and not names_classes(reference) else _share(same),
        sqnr_db=sqnr if sqnr is None or math.isfinite(sqnr) else NOTHING_DB,
        saturable_channels=saturable_channels,
        verdict=judge.execution_verdict(_share(kept), sqnr, saturable_channels),
    )


def _share(same: NDArray[np.bool_]) -> float:
    return float(same.mean()) if len(same) else 0.0


def margins(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns best − second of each row of (N, classes); infinite where there is one class."""
    if logits.shape[1] < 2:
        return np.full(len(logits), math.inf)
    best = np.partition(logits, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def noise_step(logits: NDArray[np.float64]) -> float:
    """Returns the largest margin that an error at the SQNR limit may turn over."""
    rms = math.sqrt(float(np.square(logits).mean())) if logits.size else 0.0
    return float(FORGIVEN_DEVIATIONS * math.sqrt(2) * rms * 10 ** (-EXECUTION_DB / 20))

"""INT8 outputs for the golden images, compared with what the export recorded for the same images.

Two correct executions of one quantized graph differ where a value is on the border of two steps and rounds the other
way. Such a step is as large as the quantization error itself, so for one output, golden r, in the stored simulation s,
executed y, with mean power per image |·|²:

    |y − s|² ≤ A        A = max( |s − r|², |s|² · 10^(−28/10) ),  at most half of |s|²
    |y_i − s_i|² ≤ 4 max( A, |s_i − r_i|² )         for every image i: a step is as large in a small output as in a
                                                   large one, and one image's power varies by its deviation twice

28 dB is the limit of the execution gap, which stays for the first output. Where no simulation is stored (a TensorRT
kit, whose graph is simulated at export, and early bundles), y is compared with r itself. The export recorded how far
the graph is from r, and the second error comes on top of the first: A = 2 |s − r|², 3 dB less.

A record that allows errors of more than half of the power proves nothing: zeros would pass. It gets no verdict.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from ghostdeploy.bundle.manifest import Replay
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.parity import EXACT_DB, NOTHING_DB, as_rows, worst_part
from ghostdeploy.deploy.prove.tolerance import (
    ANOTHER_OUTPUT_DB,
    EXECUTION_DB,
    IMAGE_FACTOR,
    MOST_OF_SIGNAL,
    SECOND_ERROR_DB,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import Parity

    Float = NDArray[np.float64]


def compare_with_simulation(executed: Arrays, simulated: Arrays, golden: Arrays) -> tuple[Replay, ...]:
    """Holds every output against the stored simulation.

    Args:
        executed: What the engine gave for the golden images, by output.
        simulated: What the same graph gave in float.
        golden: What the unfolded float32 model gave.

    Raises:
        BundleError: The shapes differ.
    """
    found = []
    for name, wanted in simulated.items():
        got, reference = as_rows(executed[name], wanted, name)
        with np.errstate(invalid="ignore"):  # infinity less itself is NaN, which fails below
            quantization = _power(reference - as_rows(golden[name], wanted, name)[0])
        found.append(_replay(name, "simulation", got, reference, quantization))
    return tuple(found)


def against_record(executed: Arrays, golden: Arrays, recorded: Parity | None) -> tuple[Replay, ...]:
    """Holds every output against the distance from the golden one that the export recorded.

    Args:
        executed: What the engine gave for the golden images, by output.
        golden: What the unfolded float32 model gave.
        recorded: Parity of the export.

    Returns:
        One record per output; its verdict is "unverified" where the export recorded nothing that could tell.
    """
    known = {} if recorded is None else {one.name: one.sqnr_db for one in recorded.outputs}
    if recorded is not None and not known and len(golden) == 1:
        known = {next(iter(golden)): recorded.sqnr_db}  # an early record is over all outputs
    found = []
    for name, wanted in golden.items():
        got, reference = as_rows(executed[name], wanted, name)
        ratio = known.get(name, 0.0)
        share = 2 * (0.0 if ratio is None else 10 ** (-ratio / 10))
        allowed = share * _power(reference).mean(keepdims=True)
        found.append(_replay(name, "golden", got, reference, allowed, proves=share <= MOST_OF_SIGNAL))
    return tuple(found)


def against_parts(executed: Arrays, golden: Arrays, recorded: Parity | None) -> tuple[Replay, ...]:
    """Holds every map of a float payload against the golden one, part by part.

    What is small beside the rest of its output counts as well. A part may keep what the export recorded, less 6 dB for
    another machine's rounding; `ANOTHER_OUTPUT_DB` is always enough.

    Args:
        executed: What the engine gave for the golden images, by output.
        golden: What the unfolded float32 model gave.
        recorded: Parity of the export; outputs without a record of their parts are left out.
    """
    known = {} if recorded is None else {one.name: one.part_sqnr_db for one in recorded.outputs}
    found = []
    for name, before in known.items():
        part = worst_part(executed[name], golden[name])
        if before is None or part is None:  # of NaN and infinity `parity` speaks
            continue
        required = min(ANOTHER_OUTPUT_DB, before - 2 * SECOND_ERROR_DB)
        found.append(
            Replay(
                output=f"{name}{part[0]}",
                against="golden",
                sqnr_db=part[1],
                required_db=required,
                far_images=0,
                verdict=judge.replay_verdict(-part[1], -required),
            )
        )
    return tuple(found)


def _replay(
    name: str,
    against: Literal["simulation", "golden"],
    got: Float,
    wanted: Float,
    quantization: Float,
    *,
    proves: bool = True,
) -> Replay:
    """Holds an output against the recorded one; `quantization` is the power of its own error, per image or for all."""
    signal, noise = float(_power(wanted).mean()), _power(got - wanted)
    allowed = float(quantization.mean())
    if signal > 0:
        allowed = min(max(allowed, 10 ** (-EXECUTION_DB / 10) * signal), MOST_OF_SIGNAL * signal)
    total = float(noise.mean())
    far = int((~(noise <= IMAGE_FACTOR * np.maximum(allowed, quantization))).sum())
    return Replay(
        output=name,
        against=against,
        sqnr_db=None if total == 0 else _decibel(signal, total),
        required_db=_decibel(signal, allowed),
        far_images=far,
        verdict=judge.replay_verdict(total, allowed, far, proves=proves),
    )


def _power(rows: Float) -> Float:
    """Returns the sum of squares of each image; that of huge numbers is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.square(rows).sum(axis=1))


def _decibel(signal: float, noise: float) -> float:
    if not signal or not math.isfinite(noise):
        return NOTHING_DB
    return EXACT_DB if noise == 0 else 10 * math.log10(signal / noise)

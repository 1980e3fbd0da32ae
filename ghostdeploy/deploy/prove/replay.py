"""INT8 outputs for the golden images, held against what the export recorded of the very same images.

Two sound executions of one quantized graph differ where a value lies on the border of two steps and falls the other
way. Such a step is as large as the quantization error itself, so for one output, golden r, in the stored simulation s,
executed y, with mean power per image |·|²:

    |y − s|² ≤ A        A = max( |s − r|², |s|² · 10^(−28/10) ),  at most half of |s|²
    |y_i − s_i|² ≤ 4 max( A, |s_i − r_i|² )         for every image i: a step is as large in a small output as in a
                                                   large one, and one image's power varies by its deviation twice

28 dB is the limit of the execution gap (see `execution`), which stays for the first output. Where no simulation is
stored (a TensorRT kit, whose graph is simulated at export, and early bundles), y is held against r itself. The export
recorded how far the graph is from r, and the second error comes on top of the first: A = 2 |s − r|², 3 dB less.

A record that leaves more than half of the power to errors tells nothing: zeros would pass. It is no judgement.

A later proof must not say better of a bundle than its export did:

failed        stays failed on every machine: the gate was missed on images that do not travel with the bundle
unverified    too few images stays so; "built, not executed" is decided where the engine runs the golden vectors
precision     what the manifest claims must be what was read back from the payload
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from ghostdeploy.bundle.manifest import Replay
from ghostdeploy.deploy.prove.execution import SQNR_LIMIT_DB
from ghostdeploy.deploy.prove.parity import as_rows, worst_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import Parity

    Float = NDArray[np.float64]
    from ghostdeploy.bundle.manifest import Manifest, Verdict

SECOND_ERROR_DB = 10 * math.log10(2)
"""What a second error of the same power takes off a ratio."""
PART_DB = 10.0
"""A part with a tenth of its power in error is another part, whatever the precision."""
_LIMIT = 10 ** (-SQNR_LIMIT_DB / 10)
_IMAGE = 4.0
_MOST = 0.5
_NOTHING_DB = -999.0


def compare_with_simulation(executed: Arrays, simulated: Arrays, golden: Arrays) -> tuple[Replay, ...]:
    """Judges every output by the stored simulation.

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
        found.append(_judge(name, "simulation", got, reference, quantization))
    return tuple(found)


def against_record(executed: Arrays, golden: Arrays, recorded: Parity | None) -> tuple[Replay, ...]:
    """Judges every output by the distance from the golden one that the export recorded.

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
        judged = _judge(name, "golden", got, reference, share * _power(reference).mean(keepdims=True))
        if share > _MOST and judged.verdict == "passed":
            judged = Replay(
                output=name,
                against="golden",
                sqnr_db=judged.sqnr_db,
                required_db=judged.required_db,
                far_images=judged.far_images,
                verdict="unverified",
            )
        found.append(judged)
    return tuple(found)


def against_parts(executed: Arrays, golden: Arrays, recorded: Parity | None) -> tuple[Replay, ...]:
    """Judges every map of a float payload part by part: what is small beside the rest of its output counts as well.

    A part may keep what the export recorded, less 6 dB for another machine's rounding; `PART_DB` is always enough.

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
        required = min(PART_DB, before - 2 * SECOND_ERROR_DB)
        found.append(
            Replay(
                output=f"{name}{part[0]}",
                against="golden",
                sqnr_db=part[1],
                required_db=required,
                far_images=0,
                verdict="passed" if part[1] >= required else "failed",
            )
        )
    return tuple(found)


def fault(replays: Sequence[Replay], verdict: str) -> str | None:
    """Returns what is said of the outputs with this verdict, "failed" or "unverified"; None when there is none."""
    found = []
    for one in replays:
        if one.verdict != verdict:
            continue
        kept = "the stored simulation of its graph" if one.against == "simulation" else "the golden outputs"
        amount = "no difference" if one.sqnr_db is None else f"{one.sqnr_db:.1f} dB"
        if verdict == "unverified":
            found.append(f"the export recorded nothing that output {one.output} could be held against")
        else:
            far = f", {one.far_images} images further off than rounding explains" if one.far_images else ""
            found.append(f"output {one.output} is {amount} from {kept}{far}, expected {one.required_db:.1f} dB")
    return "; ".join(found) or None


def _judge(
    name: str, against: Literal["simulation", "golden"], got: Float, wanted: Float, quantization: Float
) -> Replay:
    """Holds an output against the recorded one; `quantization` is the power of its own error, per image or for all."""
    signal, noise = float(_power(wanted).mean()), _power(got - wanted)
    allowed = float(quantization.mean())
    if signal > 0:
        allowed = min(max(allowed, _LIMIT * signal), _MOST * signal)
    total = float(noise.mean())
    far = int((~(noise <= _IMAGE * np.maximum(allowed, quantization))).sum())
    return Replay(
        output=name,
        against=against,
        sqnr_db=None if total == 0 else _decibel(signal, total),
        required_db=_decibel(signal, allowed),
        far_images=far,
        verdict="passed" if total <= allowed and not far else "failed",
    )


def _power(rows: Float) -> Float:
    """Returns the sum of squares of each image; that of huge numbers is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.square(rows).sum(axis=1))


def _decibel(signal: float, noise: float) -> float:
    if not signal or not math.isfinite(noise):
        return _NOTHING_DB
    return -_NOTHING_DB if noise == 0 else 10 * math.log10(signal / noise)


def recorded_fault(manifest: Manifest) -> str | None:
    """Returns why the export counts as failed, or its records contradict each other; None where neither is so."""
    because = failed_because(manifest)
    return precision_fault(manifest) if because is None else f"the export failed: {because}"


def failed_because(manifest: Manifest) -> str | None:
    """Returns the reason of an export that missed a gate, None of one that did not."""
    if manifest.failed_because is not None:
        return manifest.failed_because
    missed = [name for name, verdict in _verdicts(manifest) if verdict == "failed"]
    if manifest.verdict == "failed" or missed:
        return f"its manifest says so of {', '.join(missed) or 'the whole bundle'}, without a reason"
    return None


def recorded_doubt(manifest: Manifest) -> str | None:
    """Returns what the export's images left open, None where they were enough, or none were asked for."""
    open_ones = [name for name, verdict in _verdicts(manifest) if verdict == "unverified"]
    if not open_ones:
        return None
    return f"the export left {' and '.join(open_ones)} open: {manifest.unverified_because or 'not enough images'}"


def precision_fault(manifest: Manifest) -> str | None:
    """Returns how the claimed precision contradicts the layers that were read back; `hybrid` may have any."""
    found = manifest.precision_achieved
    if manifest.precision == "hybrid" or (manifest.precision == "int8") == (found.int8_layers > 0):
        return None
    return f"the manifest claims {manifest.precision}, its payload was read back with {found.int8_layers} INT8 layers"


def _verdicts(manifest: Manifest) -> list[tuple[str, Verdict]]:
    """Returns the verdicts of what a proof on another machine does not measure again, by name."""
    named = (("agreement", manifest.agreement), ("accuracy", manifest.accuracy))
    return [(name, record.verdict) for name, record in named if record is not None]

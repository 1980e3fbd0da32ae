"""The judge: computes every verdict from figures measured elsewhere and the limits of `tolerance`.

A record gets its verdict when it is measured, because some of its figures do not travel with the bundle. The verdict of
a bundle, of `verify` and of `build` follows from the records:

    failed        one gate is missed; every missed one is named
    unverified    none is missed, and one is undecided: too few images, no engine here, nothing to compare with
    passed        else

A later proof must not give a bundle a better verdict than its export did:

    failed        stays failed on every machine: the gate was missed on images that do not travel with the bundle
    unverified    too few images stays so; "built, not executed" is decided where the engine runs the golden vectors
    precision     what the manifest claims must be what was read back from the payload
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from ghostdeploy.bundle.fidelity import Fidelity, Measured
from ghostdeploy.bundle.manifest import Accuracy, Agreement, HalfRange, Parity, Replay
from ghostdeploy.deploy.prove import reasons
from ghostdeploy.deploy.prove import tolerance as limits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ghostdeploy.bundle.manifest import Execution, Manifest, PrecisionAchieved, Tolerance, Verdict

    Judged = Parity | Accuracy | Agreement | Fidelity | Measured | Execution | HalfRange | Replay

Answer = Literal["within", "exceeded", "not enough images to decide"]

BOUNDS = {
    "max_abs_relative": ("max error", -1),
    "norm_error": ("norm error", -1),
    "cosine": ("cosine", 1),
    "sqnr_db": ("SQNR", 1),
    "top1_agreement": ("agreement", 1),
}
"""What a row of the table may bound for golden images: its name in messages, and −1 where less is better."""


class Ruling(NamedTuple):
    """A verdict and its reason."""

    verdict: Verdict
    failed_because: str | None
    unverified_because: str | None


def rule(faults: Iterable[str | None], doubts: Iterable[str | None] = ()) -> Ruling:
    """Returns the verdict of whatever has these faults and open questions; None is none."""
    failed, doubt = ("; ".join(one for one in found if one is not None) or None for found in (faults, doubts))
    return Ruling(_verdict(failed, doubt), failed, None if failed else doubt)


def _verdict(missed: object, undecided: object = None) -> Verdict:
    return "failed" if missed else ("unverified" if undecided else "passed")


def missed_bounds(found: Tolerance, row: Tolerance) -> list[str]:
    """Returns the bounds that are missed, such as "cosine 0.9"; a figure that is None cannot miss."""
    pairs = [(what, sign, getattr(found, name), getattr(row, name)) for name, (what, sign) in BOUNDS.items()]
    return [
        f"{what} {value:.3g}"
        for what, sign, value, bound in pairs
        if value is not None and bound is not None and not sign * value >= sign * bound  # NaN misses
    ]


def parity_verdict(measured: Tolerance, row: Tolerance, non_finite: int) -> Verdict:
    """Judges the worst output by a row of the table; `non_finite` counts images with NaN or infinity."""
    return _verdict(non_finite or missed_bounds(measured, row))


def answer(drop_ci95: tuple[float, float], max_drop: float) -> Answer:
    """Returns on which side of the limit the whole interval of a top-1 drop is."""
    low, high = drop_ci95
    return "within" if high <= max_drop else ("exceeded" if low > max_drop else "not enough images to decide")


def accuracy_verdict(drop: float, drop_ci95: tuple[float, float], max_drop: float, non_finite: int) -> Verdict:
    """Fails a drop beyond the limit; passes one whose whole interval is within, else too few images were shown."""
    return _verdict(non_finite or drop > max_drop, answer(drop_ci95, max_drop) != "within")


def agreement_verdict(
    share: tuple[float, float], required: float, non_finite: int, *, values_near: bool = True
) -> Verdict:
    """Judges logits on real images.

    Args:
        share: Least and largest share of images with the same top-1 class that these images allow.
        required: What it must reach.
        non_finite: Images with NaN or infinity.
        values_near: The logits are as near as they must be, where classes prove nothing or more was asked for.
    """
    least, largest = share
    return _verdict(non_finite or not values_near or not largest >= required, not least >= required)


def fidelity_verdict(
    worst_db: float,
    required_db: float,
    interval: tuple[float, float] | None,
    required: float | None,
    non_finite: int,
    *,
    empty: bool = False,
) -> Verdict:
    """Judges outputs and decisions on real images.

    Args:
        worst_db: SQNR of the worst output.
        required_db: What it must reach.
        interval: 95 % interval of the share of decisions that are kept; None where there are none.
        required: What its lower bound must reach; None where decisions do not judge.
        non_finite: Images with NaN or infinity.
        empty: There was neither a value nor a decision to compare.
    """
    least, largest = interval or (1.0, 1.0)
    required = required or 0.0
    missed = non_finite or not worst_db >= required_db or not largest >= required
    return _verdict(missed, empty or not least >= required)


def measured_verdict(drop: float, max_drop: float) -> Verdict:
    """Judges what a task's measure lost; NaN fails."""
    return _verdict(not drop <= max_drop)


def execution_limit(own_db: float) -> float:
    """Returns the SQNR that an output must keep of its simulation, which is `own_db` from the float model."""
    return min(limits.EXECUTION_DB, max(limits.LEAST_EXECUTION_DB, own_db))


def execution_verdict(
    agreement: float, sqnr_db: float | None, saturable_channels: int, required_db: float = limits.EXECUTION_DB
) -> Verdict:
    """Judges an execution gap; `agreement` is the share of images with the same top-1 class or a forgiven margin."""
    near = sqnr_db is None or sqnr_db >= required_db
    return _verdict(saturable_channels or not near or not agreement >= limits.EXECUTION_AGREEMENT)


def replay_verdict(noise: float, allowed: float, far_images: int = 0, *, proves: bool = True) -> Verdict:
    """Judges an output by what was recorded of it.

    Args:
        noise: Power of the difference.
        allowed: The largest that two sound executions explain.
        far_images: Images with more error than rounding explains.
        proves: False where the record would let anything pass.
    """
    return _verdict(far_images or not noise <= allowed, not proves)


def preparation_verdict(exact: float, farthest: float) -> Verdict:
    """Judges prepared images by the share of values that are those of the export, and the largest step of 255."""
    return _verdict(not exact >= limits.EXACT_PIXELS or not farthest <= limits.PIXEL_STEPS)


def evaluation(
    non_finite: int, count: int, drop: float, max_drop: float | None
) -> tuple[Literal["measured", "failed"], str | None]:
    """Judges an `eval` and gives the reason if it failed; without a limit a drop fails nothing."""
    beyond = None if max_drop is None else _beyond(drop, max_drop)
    because = rule((reasons.not_finite(non_finite, count), beyond)).failed_because
    return ("failed" if because else "measured"), because


def compared(found: Measured | None, max_drop: float | None) -> tuple[Literal["measured", "failed"], str | None]:
    """Judges an `eval` by a task's measure, likewise."""
    if found is None or max_drop is None or found.verdict != "failed":
        return "measured", None
    return "failed", reasons.worse(found)


def conclude(manifest: Manifest, not_executed: str | None = None, faults: Iterable[str | None] = ()) -> Manifest:
    """Returns the manifest with the verdict that its own records give.

    Args:
        manifest: Records filled in.
        not_executed: Why the engine did not run; None when it did.
        faults: What else is wrong.
    """
    undecided = [
        found for one in (manifest.agreement, manifest.fidelity, manifest.accuracy) if (found := doubt(one)) is not None
    ]
    few = f"not enough images to decide: {'; '.join(undecided)}" if undecided else None
    return msgspec.structs.replace(manifest, **rule((*failures(manifest), *faults), (not_executed or few,))._asdict())


def failures(manifest: Manifest) -> list[str]:
    """Returns one phrase per gate that the manifest's records miss."""
    m = manifest
    records = (m.parity, m.accuracy, m.agreement, m.fidelity, m.measured, *m.replay, m.half_range, m.execution)
    found = [fault(one, m.precision) for one in records]
    if m.precision == "int8" and m.quantization is not None:
        found.append(int8_fault(m.precision_achieved, (*m.quantization.float_layers, *m.quantization.float_by_rule)))
    return [one for one in found if one is not None]


def verified(
    manifest: Manifest,
    parity: Parity,
    execution: Execution | None,
    replays: tuple[Replay, ...],
    prepared: Verdict | None = None,
    *,
    not_executed: str | None = None,
) -> Ruling:
    """Judges a bundle's results on this machine together with the verdict of its export.

    Args:
        manifest: The bundle's.
        parity: Golden outputs.
        execution: Execution gap of a quantized bundle.
        replays: Against what the export recorded.
        prepared: Verdict of the preprocessing; None where the bundle has no original images.
        not_executed: Why what ran here was not the payload itself; None when it was.
    """
    faults = [fault(one, manifest.precision) for one in (parity, execution, *replays)]
    faults.append(reasons.OTHER_PIXELS if prepared == "failed" else None)
    failed, left_open = _recorded(manifest)
    return rule((*faults, failed), (*map(doubt, replays), left_open, not_executed))


def self_test(executed: Parity, simulated: Parity | None) -> str | None:
    """Returns how far an engine is further from the golden vectors than the export's simulation; None where it is not.

    Only precisions without a bound on single logits need it; parity judges the others.
    """
    if simulated is None or simulated.how == "executed" or executed.tolerance.cosine is not None:
        return None
    pairs = [("", executed.sqnr_db, simulated.sqnr_db)]
    if simulated.outputs:
        known = {one.name: one.sqnr_db for one in simulated.outputs}
        pairs = [(f" of {one.name}", one.sqnr_db, known.get(one.name)) for one in executed.outputs]
    found = (
        f"golden vectors{of}: {ours:.1f} dB on the engine, {theirs:.1f} dB in the simulation of the same graph, "
        f"expected at most {limits.SELF_TEST_DB:g} dB less"
        for of, ours, theirs in pairs
        if ours is not None and theirs is not None and ours < theirs - limits.SELF_TEST_DB
    )
    return "; ".join(found) or None


def fault(found: Judged | None, precision: str) -> str | None:
    """Returns what is wrong with a record, one clause; None when nothing is, or there is none."""
    if isinstance(found, HalfRange):
        if found.largest >= limits.FP16_OVERFLOW:
            return reasons.overflow(found)
        return reasons.cut(found) if (found.weight or 0.0) >= limits.FP16_OVERFLOW else None
    if found is None or found.verdict != "failed":
        return None
    if isinstance(found, Parity):
        missed = {one.name: missed_bounds(limits.tightest(one), found.tolerance) for one in found.outputs}
        off = reasons.off_golden(found, missed, precision)
        bound, own = found.tolerance.max_abs_relative, found.reference_error
        return off if bound is None or own is None or own <= bound else f"{off}; {reasons.ill_conditioned(own, bound)}"
    if isinstance(found, Accuracy):
        said = reasons.not_finite(found.non_finite, found.count) or _beyond(found.drop, found.max_drop)
        return said or "top-1 drops by more than is allowed"
    if isinstance(found, Agreement):
        return reasons.not_finite(found.non_finite, found.count) or reasons.disagreement(found)
    if isinstance(found, Fidelity):
        return reasons.unfaithful(found)
    if isinstance(found, Measured):
        return reasons.worse(found)
    return reasons.off_record(found) if isinstance(found, Replay) else reasons.off_simulation(found)


def doubt(found: Agreement | Fidelity | Accuracy | Replay | None) -> str | None:
    """Returns what a record leaves open, one clause; None when nothing is, or there is none."""
    if found is None or found.verdict != "unverified":
        return None
    if isinstance(found, Agreement):
        return reasons.few_images(found)
    if isinstance(found, Fidelity):
        return reasons.few_decisions(found)
    if isinstance(found, Accuracy):
        return reasons.few_labelled_images(found)
    return f"the export recorded nothing to compare output {found.output} with"


def int8_fault(achieved: PrecisionAchieved, float_layers: Collection[str]) -> str | None:
    """Returns why an artefact is not the requested INT8; None when it is.

    Modules that rules and the fallback left in float explain as many float layers of what was built.
    """
    share = achieved.int8_mac_share
    if share is None:
        return "the share of convolution MACs in INT8 could not be read back from the payload"
    unexplained = achieved.float_layers - len(set(float_layers))
    if share >= limits.WORK_SHARE or (achieved.float_layers > 0 and unexplained <= 0):
        return None
    return (
        f"{share:.1%} of the convolution MACs are in INT8, expected {limits.WORK_SHARE:.0%}; "
        f"{unexplained} of {achieved.float_layers} float layers are not in the list of layers left in float"
    )


def _beyond(drop: float, max_drop: float) -> str | None:
    return None if drop <= max_drop else reasons.dropped(drop, max_drop)


def _recorded(manifest: Manifest) -> tuple[str | None, str | None]:
    """Returns what the export failed or contradicts, and what its images left open."""
    records = [
        (name, one)
        for name in ("agreement", "fidelity", "accuracy", "measured")
        if (one := getattr(manifest, name)) is not None
    ]
    missed, undecided = ([name for name, one in records if one.verdict == word] for word in ("failed", "unverified"))
    because, layers = manifest.failed_because, manifest.precision_achieved.int8_layers
    if because is None and (manifest.verdict == "failed" or missed):
        because = f"its manifest marks {', '.join(missed) or 'the bundle'} as failed, without a reason"
    few = manifest.unverified_because or "not enough images"
    left_open = f"the export could not decide {' and '.join(undecided)}: {few}" if undecided else None
    if because is not None:
        return f"the export failed: {because}", left_open
    if manifest.precision == "hybrid" or (manifest.precision == "int8") == (layers > 0):
        return None, left_open
    return f"the manifest claims {manifest.precision}, its payload has {layers} INT8 layers by read-back", left_open

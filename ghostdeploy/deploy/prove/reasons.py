"""Messages for a record that missed its gate or could not decide it: one clause each. `judge` decides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove import tolerance as limits
from ghostdeploy.statistics import wilson

if TYPE_CHECKING:
    from ghostdeploy.bundle.fidelity import Fidelity, Measured
    from ghostdeploy.bundle.manifest import Accuracy, Agreement, Execution, HalfRange, Parity, Replay


OTHER_PIXELS = "preprocessing gives other pixels than at export"


def not_finite(images: int, count: int) -> str | None:
    """Returns the message for images whose logits are not finite; None when there are none."""
    return f"logits of {images} of {count} images are NaN or infinite" if images else None


def dropped(drop: float, max_drop: float) -> str:
    """Returns the message for a top-1 drop beyond its limit."""
    return f"top-1 drops by {100 * drop:.2f} points, {100 * max_drop:.2f} allowed"


def off_golden(found: Parity, missed: dict[str, list[str]], precision: str) -> str:
    """Returns which output is off, by which measures.

    Args:
        found: The record.
        missed: Measures that missed their bound, by output.
        precision: Row of the tolerance table.
    """
    if found.non_finite:
        return f"outputs hold NaN or infinity for {found.non_finite} of {found.count} golden images"
    clauses = "; ".join(f"{name} by {', '.join(measures)}" for name, measures in missed.items() if measures)
    text = f"outputs differ from the golden ones by more than {precision} allows"
    return f"{text}: {clauses}" if clauses else text


def ill_conditioned(own: float, bound: float) -> str:
    """Returns what the reference's own distance from float64 says, both as shares of the largest magnitude."""
    return f"the model is ill-conditioned: in float32 PyTorch itself is {own:.1e} from float64, {bound:.1e} allowed"


def disagreement(found: Agreement) -> str:
    """Returns how far the logits, or the top-1 classes, are off."""
    if found.required_sqnr_db is not None and (found.sqnr_db or 0.0) < found.required_sqnr_db:
        required = found.required_sqnr_db
        return f"the logits differ: {_decibel(found.sqnr_db)} on {found.count} images, expected {required:.0f} dB"
    at_least = f" (at least {found.top1_ci95[0]:.2%})" if found.top1_ci95 else ""
    return f"only {found.top1 or 0.0:.2%} of {found.count} images keep their top-1 class{at_least}"


def unfaithful(found: Fidelity) -> str:
    """Returns which outputs, or which decisions, are off."""
    if found.non_finite:
        return f"outputs of {found.non_finite} of {found.count} images are NaN or infinite"
    off = [one for one in found.outputs if one.sqnr_db is not None and one.sqnr_db < found.required_sqnr_db]
    clauses = [f"{one.name} is {_decibel(one.sqnr_db)} from the float model's" for one in off]
    if clauses:
        return f"on {found.count} images {', '.join(clauses)}, expected {found.required_sqnr_db:g} dB"
    low = "" if found.agreement_ci95 is None else f" (at least {found.agreement_ci95[0]:.2%})"
    kept = f"only {found.agreement or 0.0:.2%} of {found.decided} {found.decision} stay{low}"
    return f"{kept}, expected {found.required_agreement or 0.0:.0%}"


def worse(found: Measured) -> str:
    """Returns how much of a task's measure is lost."""
    before, now = found.reference_figures[found.measure], found.figures[found.measure]
    change = f"{found.drop:.1%} of it" if found.relative else f"{found.drop:.4f}"
    allowed = f"{found.max_drop:.1%}" if found.relative else f"{found.max_drop:.4f}"
    return f"{found.measure} goes from {before or 0.0:.4f} to {now or 0.0:.4f}, a loss of {change}, {allowed} allowed"


def few_decisions(found: Fidelity) -> str:
    """Returns what too few decisions leave of an agreement."""
    if not found.decided:
        return f"the float model finds no {found.decision} on {found.count} images, and so nothing was compared"
    low, high = found.agreement_ci95 or wilson(found.decided, found.decided)
    between = f"between {low:.1%} and {high:.1%}, {found.required_agreement or 0.0:.0%} is needed"
    return f"{found.decided} {found.decision} of {found.count} images leave the agreement {between}"


def off_record(found: Replay) -> str:
    """Returns how far an output is from what the export recorded."""
    kept = "the stored simulation of its graph" if found.against == "simulation" else "the golden outputs"
    far = f", {found.far_images} images farther off than rounding explains" if found.far_images else ""
    return f"output {found.output} is {_decibel(found.sqnr_db)} from {kept}{far}, expected {found.required_db:.1f} dB"


def off_simulation(found: Execution) -> str:
    """Returns how far an execution is from its own float simulation."""
    if found.saturable_channels:
        return f"{found.saturable_channels} output channels can overflow 16-bit sums, expected 0"
    amount, required = _decibel(found.sqnr_db), f"{found.required_db or limits.EXECUTION_DB:.3g} dB"
    if found.agreement is None:
        return (
            f"executed on {found.isa} it is {amount} from its own float simulation on {found.count} images, "
            f"expected {required}"
        )
    least = "" if found.required_db else f"{limits.EXECUTION_AGREEMENT:.1%} and "
    return (
        f"executed on {found.isa} it agrees with its own float simulation on {found.agreement:.1%} of "
        f"{found.count} images, {amount}; expected {least}{required}"
    )


def overflow(found: HalfRange) -> str:
    """Returns which result float16 cannot hold."""
    return (
        f"{found.where} reaches {found.largest:.4g} on {found.images} images of {found.source}, "
        f"float16 ends at {limits.FP16_LARGEST:.0f}: hardware that computes in float16 overflows there"
    )


def cut(found: HalfRange) -> str:
    """Returns which constant float16 cannot hold."""
    largest = limits.FP16_LARGEST
    return f"{found.weight_of} holds {found.weight:.4g}, float16 ends at {largest:.0f}: the payload's is clamped"


def few_images(found: Agreement) -> str:
    """Returns what too few images leave of an agreement."""
    low, high = found.top1_ci95 or wilson(found.count, found.count)
    between = f"between {low:.1%} and {high:.1%}, {found.required:.0%} is needed"
    return f"{found.count} images leave the agreement {between}"


def few_labelled_images(found: Accuracy) -> str:
    """Returns what too few images leave of a drop of top-1."""
    low, high = (100 * bound for bound in found.drop_ci95)
    between = f"between {low:+.2f} and {high:+.2f} points, {100 * found.max_drop:.2f} allowed"
    return f"{found.count} labelled images leave the drop of top-1 {between}"


def _decibel(ratio: float | None) -> str:
    """Returns a ratio rounded down: 19.97 dB where 20 are expected are not 20.0 dB."""
    if ratio is None:
        return "no difference"
    return f"{math.floor(10 * ratio) / 10 if math.isfinite(ratio) else ratio:.1f} dB"

"""Tables of the commands that make bundles and list models; the device wheel has none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.preprocess import described
from ghostdeploy.terminal.layout import (
    agreement,
    fidelity_in_short,
    note,
    reference,
    relative,
    sqnr,
    stacked,
    table,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from ghostdeploy.bundle.manifest import Agreement, Manifest
    from ghostdeploy.deploy.export.build import Built
    from ghostdeploy.deploy.export.pipeline import Exported
    from ghostdeploy.deploy.export.rehearsal import Plan
    from ghostdeploy.models.zoo import ZooEntry


_LONGEST = 400
"""Characters of a value that are shown."""


def models(entries: Sequence[ZooEntry]) -> None:
    """Prints the zoo."""
    rows = [
        (e.name, e.family, f"{e.params} M", f"{e.macs} M", "–" if e.top1 is None else f"{e.top1}", e.source)
        for e in entries
    ]
    table(("model", "family", ">params", ">MACs", ">top-1 %", "source"), rows, clip=True)


def plan(found: Plan) -> None:
    """Prints what an export would do."""
    rows: list[tuple[str, str | Text]] = [
        ("model", f"{found.model} ({found.family})"),
        ("source", found.source),
        ("targets", stacked(found.targets)),
        ("precision", found.precision),
        ("batch", found.batch),
        ("input", found.input),
        ("image", described(found.preprocess)),
        ("accuracy gate", f"{found.data}, drop ≤ {found.max_drop:g}" if found.data else "none (no --data)"),
        ("bundles", stacked(found.bundles)),
    ]
    if found.decode is not None:
        rows.insert(-2, ("decode", stacked([f"{key} {_short(value)}" for key, value in found.decode.items()])))
    table(("would export", ""), rows)


def _short(value: Any) -> str:
    """Returns a value of a decode record in one line; of thousands of numbers how many there are."""
    text = msgspec.json.encode(value).decode().replace('"', "")
    return text if len(text) < _LONGEST else f"{len(value)} of {msgspec.json.encode(value[0]).decode()} …, see --json"


def agreed(found: Agreement) -> str:
    """Returns how near a quantized artefact is, by what was judged."""
    if found.top1 is not None:
        return f"{found.top1:.2%} agree"
    return "exact" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"


def _figure(m: Manifest) -> str:
    """Returns what labelled images say of the bundle and of its reference; a dash without any."""
    if m.accuracy is not None:
        return f"{m.accuracy.top1:.2%} ({reference(m)} {m.accuracy.reference_top1:.2%})"
    if m.measured is None:
        return "–"
    pair = (found.get(m.measured.measure) for found in (m.measured.figures, m.measured.reference_figures))
    ours, wanted = ("–" if figure is None else f"{figure:.4f}" for figure in pair)
    return f"{ours} ({reference(m)} {wanted})"


def outside(m: Manifest) -> str | None:
    """Returns which operators an accelerator left to the processor; None where it has all, or there is none."""
    if m.placement is None or not m.placement.elsewhere:
        return None
    kinds, unit = [one.operator for one in m.placement.elsewhere], next(iter(m.placement.units))
    counted = "1 operator runs" if len(kinds) == 1 else f"{len(kinds)} operators run"
    return f"{counted} outside the {unit}: {', '.join(dict.fromkeys(kinds))}"


def exported(found: Exported) -> None:
    """Prints the verdicts of an export."""
    rows: list[tuple[str | Text, ...]] = []
    for bundle in found.bundles:
        m = bundle.manifest
        parity = "–" if m.parity is None else relative(m.parity)
        if m.agreement is not None:
            parity = agreed(m.agreement)
        if m.fidelity is not None:
            parity = fidelity_in_short(m.fidelity)
        rows.append(
            (str(bundle.path), m.precision, f"{bundle.size / 1e6:.2f} MB", parity, _figure(m), verdict(m.verdict))
        )
    rows += [(target, "", "–", "–", "–", "no bundle") for target in found.failures]
    measured = found.bundles[0].manifest.measured if found.bundles else None
    table(
        ("bundle", "precision", ">size", ">parity", f">{'top-1' if measured is None else measured.measure}", "verdict"),
        rows,
    )
    for target, error in found.failures.items():
        note(f"{target}: {error.message}")
    for bundle in found.bundles:
        because = bundle.manifest.failed_because or bundle.manifest.unverified_because
        if because:
            note(f"{bundle.manifest.name}: {because}")
        if (left := outside(bundle.manifest)) is not None:
            note(f"{bundle.manifest.name}: {left}")
    if not found.bundles:
        return
    passes = found.bundles[0].manifest.passes
    sites = ", ".join(f"{p.name} ×{p.sites}" for p in passes if p.sites) or "nothing to do"
    worst = max((p.max_relative_error for p in passes), default=0.0)
    note(f"fold: {sites}; largest float64 error {worst:.1e}", style="dim")
    if found.advice:
        note(found.advice, style="dim")


def built(found: Built) -> None:
    """Prints what became of a build kit."""
    rows: list[tuple[str, str | Text]] = [
        ("bundle", found.bundle),
        ("engine", f"{found.engine}, by {found.library} for {found.device}"),
        ("precision", found.precision_achieved.how),
        (
            "parity",
            f"max error {relative(found.parity)}, {sqnr(found.parity)}, {agreement(found.parity)} agree",
        ),
        ("verdict", verdict(found.verdict)),
    ]
    if found.failed_because is not None:
        rows.append(("because", found.failed_because))
    table((found.name, ""), rows)

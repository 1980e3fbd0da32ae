"""Tables for people: one function per command, over the same records that `--json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.deploy.prove.image_folders import counted
from ghostdeploy.preprocess import described
from ghostdeploy.runtimes.scores import scored_classes
from ghostdeploy.terminal.layout import (
    bounds,
    cosine,
    fidelity,
    gap,
    half_range,
    reference,
    relative,
    shape,
    table,
    tick,
)

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.manifest import Agreement, Manifest
    from ghostdeploy.deploy.measure.doctor import Examination


_NAMED = 8
"""Operators that are shown one by one."""


def doctor(found: Examination) -> None:
    """Prints what this machine can do."""
    rows = [
        (t.target, tick(able=t.can_export), tick(able=t.can_run), t.reason or "", t.install or "")
        for t in found.targets
    ]
    table(("target", "export", "run", "why not", "how to fix it"), rows)
    table(("machine", ""), [(fact.name, fact.value) for fact in found.machine])


def _classes(m: Manifest) -> str:
    count = scored_classes(m)
    return f"{count} classes" if count else "not a classifier"


def inspected(bundle: Bundle) -> None:
    """Prints a bundle's manifest."""
    m = bundle.manifest
    rows = [
        ("model", f"{m.model.name} ({m.model.family}), {_classes(m)}"),
        ("source", m.model.source),
        ("weights", f"SHA-256 {m.model.weights_sha256}" if m.model.weights_sha256 else "no checkpoint file"),
        ("size", f"{m.model.params / 1e6:.3f} M parameters before the fold, {m.model.macs / 1e6:.1f} M MACs per image"),
        ("target", f"{m.target} {m.precision}, runs on {', '.join(m.runtimes)}"),
        ("created", f"{m.created} by {', '.join(f'{k} {v}' for k, v in m.tools.items())}"),
        *((f"input {t.name}", f"{t.dtype} {shape(t.shape)} {t.layout or ''}") for t in m.inputs),
        ("task", m.task.name),
        *((f"output {t.name}", f"{t.dtype} {shape(t.shape)}{f', {t.role}' if t.role else ''}") for t in m.outputs),
        ("image", described(m.preprocess)),
        *((("batch", m.batch_note),) if m.batch_note else ()),
        ("precision", m.precision_achieved.how),
    ]
    if m.parity is not None:
        rows.append(("parity", f"max error {relative(m.parity)}, cosine {cosine(m.parity.cosine)}, {m.parity.verdict}"))
        rows.append(("tolerance", f"{bounds(m.parity.tolerance)}: {m.parity.tolerance.why}"))
    if m.half_range is not None:
        rows.append(("float16 range", half_range(m.half_range)))
    rows += _quantized(m)
    rows += _accelerated(m)
    if m.accuracy is not None:
        a = m.accuracy
        low, high = a.drop_ci95
        decided = "" if a.decided else ", not enough images to decide"
        figures = f"top-1 {a.top1:.2%} on {a.count} images, {reference(m)} {a.reference_top1:.2%}"
        drop = (
            f"drop {100 * a.drop:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}), allowed {100 * a.max_drop:.2f}"
        )
        rows.append(("accuracy", f"{figures}, {drop}{decided}, {a.how}: {a.verdict}"))
        rows += [("classes", a.class_order)] if a.class_order is not None else []
        rows += [("left out", counted(a.left_out))] if a.left_out else []
        rows += [("note", note) for note in a.notes]
    because = m.failed_because or m.unverified_because
    rows.append(("verdict", m.verdict + (f": {because}" if because else "")))
    table((m.name, ""), rows)
    table(
        ("fold pass", ">sites", ">max relative error (float64)"),
        [(p.name, str(p.sites), f"{p.max_relative_error:.1e}") for p in m.passes],
    )
    table(("file", ">bytes", "SHA-256"), [(f.path, str(f.bytes), f.sha256) for f in m.files])


def _quantized(m: Manifest) -> list[tuple[str, str]]:
    """Returns the rows that only a quantized bundle has."""
    rows = []
    if m.quantization is not None:
        q = m.quantization
        rows.append(("quantization", f"{q.scheme}; by {q.tool}"))
        if q.calibration is not None:
            held_out = f", {q.calibration.held_out} held out to judge" if q.calibration.held_out else ""
            rows.append(("calibration", f"{q.calibration.count} images{held_out}, SHA-256 {q.calibration.sha256}"))
        rows.append(("left in float", ", ".join(q.float_layers) or "nothing because of the accuracy gate"))
        if q.float_by_rule:
            rows.append(("float by rule", ", ".join(q.float_by_rule)))
    if m.agreement is not None:
        g = m.agreement
        amount = "exact" if g.sqnr_db is None else f"{g.sqnr_db:.1f} dB"
        share, needed = f"values on {g.count} images: {amount}", []
        if g.top1 is not None and g.top1_ci95 is not None:
            low, high = g.top1_ci95
            share = (
                f"{g.top1:.2%} of {g.count} images ({low:.1%} to {high:.1%}) keep their top-1 class, logits {amount}"
            )
            needed.append(f"{g.required:.0%}")
        if g.required_sqnr_db is not None:
            share = f"{_one_class(g)}; {share}"
            needed.append(f"{g.required_sqnr_db:.0f} dB")
        rows.append(("agreement", f"{share}, at least {' and '.join(needed)} needed, {g.how}: {g.verdict}"))
    if m.fidelity is not None:
        rows.append(("fidelity", fidelity(m.fidelity)))
    if m.execution is not None:
        rows.append(("execution gap", gap(m.execution)))
    return rows


def _accelerated(m: Manifest) -> list[tuple[str, str]]:
    """Returns the rows of a payload for an accelerator: what its compiler said."""
    rows = []
    if m.placement is not None:
        units = ", ".join(f"{count} on {unit}" for unit, count in m.placement.units.items())
        rows.append(("placement", f"operators: {units}; by {m.placement.source}"))
        rows += [(f"on {one.unit}", f"{one.operator} {one.name}") for one in m.placement.elsewhere[:_NAMED]]
        if (more := len(m.placement.elsewhere) - _NAMED) > 0:
            rows.append(("elsewhere", f"{more} more, see --json"))
    sources = dict.fromkeys(one.source for one in m.estimates)
    for source in sources:
        figures = [f"{one.name} {one.value:.6g} {one.unit}" for one in m.estimates if one.source == source]
        rows.append(("estimates", f"{', '.join(figures)}; by {source}, not measured"))
    return rows


def _one_class(found: Agreement) -> str:
    """Returns why the top-1 class proves nothing."""
    if found.reference_class is None:
        return "one output column has no top-1 class"
    return f"the float model gives class {found.reference_class} for every image"


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """Returns a bundle as a JSON document: its path and its manifest."""
    return {"path": str(bundle.path), "manifest": msgspec.to_builtins(bundle.manifest)}

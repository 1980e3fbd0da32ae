"""Tables for people: one function per command, over the same records that `--json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from ghostdeploy.layout import bounds, console, cosine, relative, shape, table, tick, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle import Bundle
    from ghostdeploy.deploy.doctor import Examination
    from ghostdeploy.deploy.pipeline import Exported
    from ghostdeploy.deploy.request import Plan
    from ghostdeploy.models.zoo import ZooEntry


def models(entries: Sequence[ZooEntry]) -> None:
    """Prints the zoo."""
    rows = [
        (e.name, e.family, f"{e.params} M", f"{e.macs} M", "–" if e.top1 is None else f"{e.top1}", e.source)
        for e in entries
    ]
    table(("model", "family", ">params", ">MACs", ">top-1 %", "source"), rows, clip=True)


def doctor(found: Examination) -> None:
    """Prints what this machine can do."""
    rows = [
        (t.target, tick(able=t.can_export), tick(able=t.can_run), t.reason or "", t.install or "")
        for t in found.targets
    ]
    table(("target", "export", "run", "why not", "what helps"), rows)
    table(("machine", ""), [(fact.name, fact.value) for fact in found.machine])


def plan(found: Plan) -> None:
    """Prints what an export would do."""
    spec = found.preprocess
    rows = [
        ("model", f"{found.model} ({found.family})"),
        ("source", found.source),
        ("targets", "\n".join(found.targets)),
        ("precision", found.precision),
        ("batch", found.batch),
        ("input", found.input),
        (
            "image",
            f"{spec.size} px, crop {spec.crop_fraction:g}, {spec.interpolation}, mean {spec.mean}, std {spec.std}",
        ),
        ("accuracy gate", f"{found.data}, drop ≤ {found.max_drop:g}" if found.data else "none (no --data)"),
        ("bundles", "\n".join(found.bundles)),
    ]
    table(("would export", ""), rows)


def exported(found: Exported) -> None:
    """Prints the verdicts of an export."""
    rows = []
    for bundle in found.bundles:
        m = bundle.manifest
        top1 = "–" if m.accuracy is None else f"{m.accuracy.top1:.2%} (PyTorch {m.accuracy.reference_top1:.2%})"
        parity = "–" if m.parity is None else relative(m.parity)
        rows.append((str(bundle.path), m.precision, f"{bundle.size / 1e6:.2f} MB", parity, top1, verdict(m.verdict)))
    table(("bundle", "precision", ">size", ">max error", ">top-1", "verdict"), rows)
    passes = found.bundles[0].manifest.passes
    sites = ", ".join(f"{p.name} ×{p.sites}" for p in passes if p.sites) or "nothing to do"
    worst = max((p.max_relative_error for p in passes), default=0.0)
    console().print(Text(f"fold: {sites}; largest float64 error {worst:.1e}", style="dim"), soft_wrap=True)


def inspected(bundle: Bundle) -> None:
    """Prints a bundle's manifest."""
    m = bundle.manifest
    spec = m.preprocess
    image = f"{spec.size} px, crop {spec.crop_fraction:g}, {spec.interpolation}, mean {spec.mean}, std {spec.std}"
    rows = [
        ("model", f"{m.model.name} ({m.model.family}), {m.model.num_classes} classes"),
        ("source", m.model.source),
        ("weights", f"SHA-256 {m.model.weights_sha256}" if m.model.weights_sha256 else "no checkpoint file"),
        ("size", f"{m.model.params / 1e6:.3f} M parameters before the fold, {m.model.macs / 1e6:.1f} M MACs per image"),
        ("target", f"{m.target} {m.precision}, runs on {', '.join(m.runtimes)}"),
        ("created", f"{m.created} by {', '.join(f'{k} {v}' for k, v in m.tools.items())}"),
        *((f"input {t.name}", f"{t.dtype} {shape(t.shape)} {t.layout or ''}") for t in m.inputs),
        *((f"output {t.name}", f"{t.dtype} {shape(t.shape)}") for t in m.outputs),
        ("image", image),
        ("precision", m.precision_achieved.how),
    ]
    if m.parity is not None:
        rows.append(("parity", f"max error {relative(m.parity)}, cosine {cosine(m.parity.cosine)}, {m.parity.verdict}"))
        rows.append(("tolerance", f"{bounds(m.parity.tolerance)}: {m.parity.tolerance.why}"))
    if m.accuracy is not None:
        a = m.accuracy
        rows.append(
            ("accuracy", f"top-1 {a.top1:.2%} on {a.count} images, PyTorch {a.reference_top1:.2%}, {a.verdict}")
        )
    rows.append(("verdict", m.verdict + (f": {m.unverified_because}" if m.unverified_because else "")))
    table((m.name, ""), rows)
    table(
        ("fold pass", ">sites", ">max relative error (float64)"),
        [(p.name, str(p.sites), f"{p.max_relative_error:.1e}") for p in m.passes],
    )
    table(("file", ">bytes", "SHA-256"), [(f.path, str(f.bytes), f.sha256) for f in m.files])


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """Returns a bundle as a JSON document: its path and its manifest."""
    return {"path": str(bundle.path), "manifest": msgspec.to_builtins(bundle.manifest)}

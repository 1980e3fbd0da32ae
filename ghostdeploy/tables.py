"""Tables for people: one function per command, over the same records that `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ghostdeploy.bundle import Bundle
    from ghostdeploy.deploy.doctor import Examination
    from ghostdeploy.deploy.evaluate import Evaluation, Share
    from ghostdeploy.deploy.pipeline import Exported
    from ghostdeploy.deploy.prove import Verification
    from ghostdeploy.deploy.request import Plan
    from ghostdeploy.manifest import Parity, Tolerance
    from ghostdeploy.models.zoo import ZooEntry

_COLORS = {"passed": "green", "failed": "bold red", "unverified": "yellow"}


def models(entries: Sequence[ZooEntry]) -> None:
    """Prints the zoo."""
    rows = [
        (e.name, e.family, f"{e.params} M", f"{e.macs} M", "–" if e.top1 is None else f"{e.top1}", e.source)
        for e in entries
    ]
    _table(("model", "family", ">params", ">MACs", ">top-1 %", "source"), rows, clip=True)


def doctor(found: Examination) -> None:
    """Prints what this machine can do."""
    rows = [
        (t.target, _tick(able=t.can_export), _tick(able=t.can_run), t.reason or "", t.install or "")
        for t in found.targets
    ]
    _table(("target", "export", "run", "why not", "what helps"), rows)
    _table(("machine", ""), [(fact.name, fact.value) for fact in found.machine])


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
    _table(("would export", ""), rows)


def exported(found: Exported) -> None:
    """Prints the verdicts of an export."""
    rows = []
    for bundle in found.bundles:
        m = bundle.manifest
        top1 = "–" if m.accuracy is None else f"{m.accuracy.top1:.2%} (PyTorch {m.accuracy.reference_top1:.2%})"
        parity = "–" if m.parity is None else _relative(m.parity)
        rows.append((str(bundle.path), m.precision, f"{bundle.size / 1e6:.2f} MB", parity, top1, _verdict(m.verdict)))
    _table(("bundle", "precision", ">size", ">max error", ">top-1", "verdict"), rows)
    passes = found.bundles[0].manifest.passes
    sites = ", ".join(f"{p.name} ×{p.sites}" for p in passes if p.sites) or "nothing to do"
    worst = max((p.max_relative_error for p in passes), default=0.0)
    _out().print(Text(f"fold: {sites}; largest float64 error {worst:.1e}", style="dim"), soft_wrap=True)


def verified(found: Sequence[Verification]) -> None:
    """Prints parity against the golden vectors, with the margin and the tolerance that would have passed."""
    rows = [
        (
            v.name,
            v.engine,
            str(v.parity.count),
            _relative(v.parity),
            _cosine(v.parity.cosine),
            _sqnr(v.parity),
            f"{v.parity.top1_agreement:.1%}",
            _verdict(v.verdict),
        )
        for v in found
    ]
    _table(("bundle", "engine", ">images", ">max error", ">cosine", ">SQNR", ">agreement", "verdict"), rows)
    for v in found:
        text = f"{v.name}: needs {_bounds(v.parity.tolerance)}; {_bounds(v.parity.would_pass)} would have passed"
        _out().print(Text(text, style="dim"), soft_wrap=True)


def evaluated(found: Sequence[Evaluation]) -> None:
    """Prints accuracy, and the comparison with the reference."""
    _table(
        ("bundle", ">images", ">top-1 (95 %)", ">top-5 (95 %)"),
        [(_name(e.bundle), str(e.count), _share(e.top1), _share(e.top5)) for e in found],
    )
    compared = [(e, e.comparison) for e in found if e.comparison is not None]
    if compared:
        rows = [
            (
                _name(e.bundle),
                _name(c.reference),
                _share(c.agreement),
                f"{100 * c.drop:+.2f} ({100 * c.drop_ci95[0]:+.2f} to {100 * c.drop_ci95[1]:+.2f})",
                f"{c.lost} / {c.won}",
                f"{c.p_value:.3f}",
            )
            for e, c in compared
        ]
        _table(("bundle", "reference", ">agreement", ">drop, points (95 %)", ">lost / won", ">McNemar p"), rows)


def classified(found: dict[str, list[tuple[str, float]]]) -> None:
    """Prints the classes of each image."""
    rows = [
        (image if rank == 0 else "", label, f"{probability:.1%}")
        for image, classes in found.items()
        for rank, (label, probability) in enumerate(classes)
    ]
    _table(("image", "class", ">probability"), rows)


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
        *((f"input {t.name}", f"{t.dtype} {_shape(t.shape)} {t.layout or ''}") for t in m.inputs),
        *((f"output {t.name}", f"{t.dtype} {_shape(t.shape)}") for t in m.outputs),
        ("image", image),
        ("precision", m.precision_achieved.how),
    ]
    if m.parity is not None:
        rows.append(
            ("parity", f"max error {_relative(m.parity)}, cosine {_cosine(m.parity.cosine)}, {m.parity.verdict}")
        )
        rows.append(("tolerance", f"{_bounds(m.parity.tolerance)}: {m.parity.tolerance.why}"))
    if m.accuracy is not None:
        a = m.accuracy
        rows.append(
            ("accuracy", f"top-1 {a.top1:.2%} on {a.count} images, PyTorch {a.reference_top1:.2%}, {a.verdict}")
        )
    rows.append(("verdict", m.verdict + (f": {m.unverified_because}" if m.unverified_because else "")))
    _table((m.name, ""), rows)
    _table(
        ("fold pass", ">sites", ">max relative error (float64)"),
        [(p.name, str(p.sites), f"{p.max_relative_error:.1e}") for p in m.passes],
    )
    _table(("file", ">bytes", "SHA-256"), [(f.path, str(f.bytes), f.sha256) for f in m.files])


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """Returns a bundle as a JSON document: its path and its manifest."""
    return {"path": str(bundle.path), "manifest": msgspec.to_builtins(bundle.manifest)}


def _out() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 140))


def _table(columns: Iterable[str], rows: Iterable[Sequence[str | Text]], *, clip: bool = False) -> None:
    """Prints a table; a column whose title starts with `>` is right-aligned; `clip` cuts the last one to one line."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    titles = list(columns)
    for title in titles:
        justify: Literal["left", "right"] = "right" if title.startswith(">") else "left"
        fixed = clip and title != titles[-1]  # rich narrows only the columns that may wrap
        table.add_column(title.lstrip(">"), justify=justify, overflow="fold", no_wrap=fixed)
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(cell) for cell in row]
        if clip:
            cells[-1].no_wrap, cells[-1].overflow = True, "ellipsis"
        table.add_row(*cells)
    console = _out()
    console.print(table)
    console.print()


def _verdict(verdict: str) -> Text:
    return Text(verdict, style=_COLORS[verdict])


def _tick(*, able: bool) -> Text:
    return Text("yes", style="green") if able else Text("no", style="yellow")


def _relative(parity: Parity) -> str:
    return f"{parity.max_abs / (parity.reference_max_abs or 1.0):.1e}"


def _name(path: str) -> str:
    """Returns the folder's own name: the full path is in `--json`."""
    return Path(path).name


def _cosine(value: float) -> str:
    """Shows how far below 1 a cosine is where seven digits would round it to 1."""
    return f"{value:.7g}" if value <= 0.9999999 or value >= 1 else f"1 − {1 - value:.0e}"


def _sqnr(parity: Parity) -> str:
    return "exact" if parity.sqnr_db is None else f"{parity.sqnr_db:.1f} dB"


def _share(share: Share) -> str:
    return f"{share.value:.2%} ({share.ci95[0]:.1%} to {share.ci95[1]:.1%})"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "×".join("N" if size is None else str(size) for size in shape)


def _bounds(tolerance: Tolerance) -> str:
    parts = []
    if tolerance.max_abs_relative is not None:
        parts.append(f"max error ≤ {tolerance.max_abs_relative:.1e}")
    if tolerance.cosine is not None:
        parts.append(f"cosine ≥ {_cosine(tolerance.cosine)}")
    if tolerance.top1_agreement is not None:
        parts.append(f"agreement ≥ {tolerance.top1_agreement:.3g}")
    return ", ".join(parts)

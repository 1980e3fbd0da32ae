"""Tables of what was proven: parity, accuracy, classes, and where an error comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.evaluate import Evaluation
from ghostdeploy.deploy.prove.image_folders import counted
from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation
from ghostdeploy.tasks.table import resolve, tasks
from ghostdeploy.terminal.layout import (
    agreement,
    bounds,
    cosine,
    folder_name,
    gap,
    note,
    relative,
    share,
    sqnr,
    table,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import TensorSpec
    from ghostdeploy.deploy.measure.bench import Bench
    from ghostdeploy.deploy.prove.commands import Verification
    from ghostdeploy.deploy.prove.diagnose import Diagnosis
    from ghostdeploy.deploy.prove.served import EndpointVerification


def verified(found: Sequence[Verification]) -> None:
    """Prints parity against the golden vectors, with the margin and the tolerance that would have passed."""
    rows = [
        (
            v.name,
            v.engine,
            str(v.parity.count),
            relative(v.parity),
            cosine(v.parity.cosine),
            sqnr(v.parity),
            agreement(v.parity),
            verdict(v.verdict),
        )
        for v in found
    ]
    table(("bundle", "engine", ">images", ">max error", ">cosine", ">SQNR", ">agreement", "verdict"), rows)
    for v in found:
        text = f"{v.name}: needs {bounds(v.parity.tolerance)}; {bounds(v.parity.would_pass)} would have passed"
        if v.execution is not None:
            text = f"{v.name}: {gap(v.execution)}"
        note(text, style="dim")
        if not v.parity.agreement_proves and _names_classes(getattr(v, "reference", v.bundle)):
            note(
                f"{v.name}: the golden outputs never name different classes, so agreement would prove nothing",
                style="dim",
            )
        note(f"{v.name}: {_preprocessing(v)}", style="dim")
        if because := v.failed_because or v.unverified_because:
            note(f"{v.name}: {because}")


def served(found: Sequence[EndpointVerification]) -> None:
    """Prints how servers were asked, and whether they told which bundle they serve."""
    for v in found:
        told = f"serves digest {v.digest[:12]}, that of" if v.digest else "tells no digest; it was held against"
        how = "binary tensors" if v.binary else "numbers in JSON, as it refuses binary tensors"
        note(f"{v.bundle} {told} {v.reference}; asked with {how}", style="dim")


def _names_classes(bundle: str) -> bool:
    """Tells whether a bundle's task is judged by classes."""
    row = tasks().get(open_bundle(bundle, check_hashes=False).manifest.task.name)
    return row is not None and bool(resolve(row.task).proof == "agreement")


def _preprocessing(found: Verification) -> str:
    if found.preprocessing is None:
        return "no original images in golden.npz, so its preprocessing is not checked"
    exact = found.preprocessing.exact
    how = "exactly" if exact == 1 else f"{exact:.1%} of the values exactly"
    return f"preprocessing of {found.preprocessing.images} original images gives the golden inputs, {how}"


def evaluated(found: Sequence[Evaluation | TaskEvaluation]) -> None:
    """Prints accuracy, and the comparison with the reference."""
    by_task = [one for one in found if isinstance(one, TaskEvaluation)]
    if by_task:
        _measured(by_task)
    if classified := [one for one in found if isinstance(one, Evaluation)]:
        _classified(classified)


def _measured(found: Sequence[TaskEvaluation]) -> None:
    names = list(found[0].figures)
    rows = [
        (folder_name(e.bundle), str(e.count), *("–" if (f := e.figures[n]) is None else f"{f:.4f}" for n in names))
        for e in found
    ]
    table(("bundle", ">images", *(f">{name}" for name in names)), rows)
    compared = [(e, e.comparison) for e in found if e.comparison is not None]
    rows = [
        (
            folder_name(e.bundle),
            folder_name(e.reference or ""),
            f"{c.drop:+.4f}" + ("" if c.drop_ci95 is None else f" ({c.drop_ci95[0]:+.4f} to {c.drop_ci95[1]:+.4f})"),
            f"{c.max_drop:g}",
        )
        for e, c in compared
    ]
    if rows:
        kind = f"drop of {found[0].measure}"
        if compared[0][1].relative:
            kind = f"rise of {found[0].measure}, relative"
        table(("bundle", "reference", f">{kind} (95 %)", ">allowed"), rows)
    for e in found:
        if e.failed_because:
            note(f"{folder_name(e.bundle)} failed: {e.failed_because}")


def _classified(found: Sequence[Evaluation]) -> None:
    table(
        ("bundle", ">images", ">top-1 (95 %)", ">top-5 (95 %)"),
        [(folder_name(e.bundle), str(e.count), share(e.top1), share(e.top5)) for e in found],
    )
    for line in sorted({f"left out of {e.data}: {counted(e.left_out)}" for e in found if e.left_out}):
        note(line, style="dim")
    for e in found:
        if e.failed_because:
            note(f"{folder_name(e.bundle)} failed: {e.failed_because}")
    compared = [(e, e.comparison) for e in found if e.comparison is not None]
    if compared:
        rows = [
            (
                folder_name(e.bundle),
                folder_name(c.reference),
                share(c.agreement),
                f"{100 * c.drop:+.2f} ({100 * c.drop_ci95[0]:+.2f} to {100 * c.drop_ci95[1]:+.2f})",
                f"{c.lost} / {c.won}",
                f"{c.p_value:.3f}",
                f"{c.answer}: {100 * c.max_drop:g}",
            )
            for e, c in compared
        ]
        table(
            ("bundle", "reference", ">agreement", ">drop, points (95 %)", ">lost / won", ">McNemar p", "allowed drop"),
            rows,
        )


def diagnosed(found: Diagnosis, top: int, outputs: Sequence[TensorSpec]) -> None:
    """Prints the layers that carry the error, worst first.

    Args:
        found: Of a quantized bundle.
        top: Layers to show.
        outputs: Of the bundle.
    """
    gains = {gain.unit: gain for gain in found.gains}
    rows = [
        (
            layer.module,
            layer.role,
            "exact" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB",
            f"{layer.clipped:.3%}",
            f"{layer.dead:.0%}",
            f"{gains[layer.unit].sqnr_gain_db:+.2f} dB" if layer.unit in gains else "–",
            "float" if layer.unit in found.float_units else "int8",
        )
        for layer in found.layers[:top]
    ]
    titles = ("PyTorch module", "role", f">SQNR {found.noise}", ">clipped", ">unused steps", ">gain if float", "now")
    table(titles, rows)
    overall = "exact" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"
    what = ", ".join(dict.fromkeys(one.role or one.name for one in outputs))
    text = f"{len(found.layers)} quantized layers; {what} {overall} against float on {found.images} images" + (
        "" if found.agreement is None else f", {found.agreement:.2%} with the same top-1 class"
    )
    note(text, style="dim")


def benched(found: Bench) -> None:
    """Prints latencies with the ratio to the baseline, and what else a device pays for."""
    rows = []
    for one in found.bundles:
        low, high = one.ratio_ci95
        ratio = "1" if low == high == 1 else f"{one.ratio:.3f} ({low:.3f}–{high:.3f})"
        rows.append(
            (
                one.name,
                one.engine,
                *(f"{value:#.3g}" for value in (one.median_ms, one.p95_ms, one.p99_ms)),
                ratio,
                f"{one.limit_share:.0%}",
                f"{one.images_per_second:.0f}",
                f"{one.first_result_ms:.0f}",
                "–" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.0f}",
                f"{one.size_bytes / 1e6:.2f}",
            )
        )
    columns = (">median, ms", ">p95", ">p99", ">ratio (95 %)", ">of limit")
    table(("bundle", "engine", *columns, ">images/s", ">first, ms", ">peak, MB", ">size, MB"), rows)
    _said(found)


def _said(found: Bench) -> None:
    """Prints the conditions of a run."""
    memory = found.rates.bandwidths[-1].bytes_per_second
    lines = [
        f"{found.machine}; {found.threads} thread(s), batch {found.batch}, {found.rounds} interleaved rounds",
        f"roofline of each graph in float from {found.rates.macs_per_second / 1e9:.1f} GMAC/s and {memory / 1e9:.1f} "
        "GB/s of memory, measured here; INT8 may exceed it",
    ]
    if len({one.baseline for one in found.bundles}) > 1:
        lines.insert(1, "each ratio is to the default export of the same model and target")
    for line in lines:
        note(line, style="dim")
    if found.noisy:
        worst = max(found.bundles, key=lambda one: one.spread)
        text = f"this machine is noisy: {worst.name} varies by {worst.spread:.0%}; trust the ratios, not the times"
        note(text, style="yellow")

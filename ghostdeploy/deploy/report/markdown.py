"""A report in a few lines of Markdown, for pull requests: verdicts, figures, the block that is broken."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove.layerwise.records import named
from ghostdeploy.deploy.report.page import summary
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ghostdeploy.deploy.prove.layerwise.records import Live
    from ghostdeploy.deploy.report.records import Evidence, Model, Report

_MARKS = {"passed": "✅ passed", "failed": "❌ failed", "unverified": "⚠️ unverified"}


def render(report: Report) -> str:
    """Returns a report as GitHub's Markdown, with a line feed at the end."""
    lines = [f"### ghostdeploy: {report.verdict}", "", summary(report), ""]
    for model in report.models:
        lines += [*_table(model), *_remarks(model)]
    made = ", ".join(f"{name} {one}" for name, one in report.tools.items())
    return "\n".join([*lines, f"<sub>{report.created}, {made}, record {(report.digest or '')[:12]}</sub>", ""])


def _table(model: Model) -> Iterator[str]:
    measure = next((one.manifest.measured.measure for one in model.bundles if one.manifest.measured), "top-1 (95 %)")
    yield f"| {_cell(model.name)} | verdict | max error | {_cell(measure)} | drop, points | agreement | median | size |"
    yield "|:--|:--|--:|--:|--:|--:|--:|--:|"
    for one in model.bundles:
        m = one.manifest
        agreed = m.agreement.top1 if m.agreement else m.fidelity.agreement if m.fidelity else None
        times = [run.timing.median_ms for run in model.runs if run.bundle == one.key and run.timing]
        cells = [
            _cell(m.name),
            _MARKS[one.verdict],
            "–" if one.max_error is None else f"{one.max_error:.1e}",
            _measured(one),
            "–" if m.accuracy is None else f"{100 * m.accuracy.drop:+.2f}",
            "–" if agreed is None else f"{100 * agreed:.2f} %",
            f"{min(times):.2f} ms" if times else "–",
            f"{one.size_bytes / 1e6:.2f} MB",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _measured(one: Evidence) -> str:
    m = one.manifest
    if m.accuracy is not None and one.top1_ci95 is not None:
        low, high = one.top1_ci95
        return f"{100 * m.accuracy.top1:.2f} % ({100 * low:.1f} to {100 * high:.1f})"
    if m.measured is not None and (value := m.measured.figures[m.measured.measure]) is not None:
        return f"{value:.4g}"
    return "–"


def _remarks(model: Model) -> Iterator[str]:
    found = []
    for one in model.bundles:
        m, worst = one.manifest, one.worst
        because = m.failed_because or m.unverified_because
        if because:
            found.append(f"- **{_cell(m.name)}** {m.verdict}: {_cell(because)}")
        broken = [held.live for held in one.held if held.live.wrong]
        if broken and not because:
            found.append(f"- **{_cell(m.name)}** failed: a block is not what the reference computes")
        found += [f"  {line}" for line in map(_broken, broken)]
        if because and worst and not broken:
            kind = "broken block" if worst.stands_out else "weakest layer"
            off = f"{worst.sqnr_db:.1f} dB, {worst.below_median_db:.1f} below the median layer"
            found.append(f"  {kind} `{worst.module}`: {off}; {worst.advice}: `{worst.command}`")
    for run in model.runs:
        if run.verdict != "passed":
            found.append(f"- **{run.bundle} on {_cell(run.where)}** {run.verdict}: {_cell(run.because or '')}")
    if model.answers is not None:
        count = f"{model.answers.flipped} of {model.answers.images}"
        found.append(f"- answers that are not the float model’s: {count} images of {_cell(model.answers.source)}")
    yield from (*found, "") if found else ()


def _broken(live: Live) -> str:
    first = live.wrong[0]
    level = "no error" if first.introduced_db is None else f"{first.introduced_db:.1f} dB"
    name = named(first.layers, first.readers)
    return f"broken block `{name}`: introduces {level}, at least {first.allowed_db:.0f} expected; {_cell(live.advice)}"


def _cell(text: str) -> str:
    """Returns text that is nothing but text in a table of Markdown."""
    plain = html.escape(" ".join(visible_line(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|#])", r"\\\1", plain)

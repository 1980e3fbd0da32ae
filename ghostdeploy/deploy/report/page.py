"""A report as one HTML file that needs nothing else: text, styles, charts, pictures, and the record of it all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import msgspec
from markupsafe import Markup

from ghostdeploy.deploy.report.figures import Figures
from ghostdeploy.deploy.report.records import decode
from ghostdeploy.deploy.report.views import views
from ghostdeploy.errors import BadInput
from ghostdeploy.visible import visible

if TYPE_CHECKING:
    from ghostdeploy.deploy.report.records import Report

TEMPLATES = Path(__file__).parent / "templates"
_RECORD = re.compile(rb'<script type="application/json" id="ghostdeploy-report">(.*?)</script>', re.DOTALL)
_URGENCY = {"failed": 0, "unverified": 1, "passed": 2}
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What would end the element of the record, or a line of a script, as JSON writes it else."""


def render(report: Report, file_name: str) -> str:
    """Returns the page of a report; the same for the same record, file name and versions.

    Args:
        report: With its digest.
        file_name: Under which the page says that it can be checked.
    """
    found = views(report)
    figures = Figures(msgspec.json.decode(msgspec.json.encode(report)))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "show": figures.show,
        "interval": figures.interval,
        "report": report,
        "models": found,
    }
    return environment.get_template("page.html").render(
        title=", ".join(model.name for model in report.models),
        summary=summary(report),
        ranked=sorted((one for model in found for one in model.bundles), key=lambda one: _URGENCY[one.record.verdict]),
        all_classify=all(model.task == "classify" for model in report.models),
        css=Markup((TEMPLATES / "style.css").read_text("utf-8")),
        embedded=Markup(_embedded(report)),
        file_name=file_name,
    )


def _shown(value: object) -> object:
    """Returns text whose characters steer no reader: names come from others, and may turn the direction of a line."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def summary(report: Report) -> str:
    """Returns the verdicts in one sentence."""
    bundles = [one.verdict for model in report.models for one in model.bundles]
    runs = [run.verdict for model in report.models for run in model.runs]
    text = f"{bundles.count('passed')} of {len(bundles)} bundle{'s' if len(bundles) > 1 else ''} passed"
    if runs:
        text += f", {runs.count('passed')} of {len(runs)} receipt{'s' if len(runs) > 1 else ''}"
    failed = [
        f"{one.key} {one.manifest.name}" for model in report.models for one in model.bundles if one.verdict == "failed"
    ]
    return f"{text}. Failed: {', '.join(failed)}." if failed else f"{text}."


def read(page: Path) -> tuple[Report, str]:
    """Returns the record inside a page, and the whole page.

    Raises:
        BadInput: It cannot be read, or is no report.
    """
    try:
        data = page.read_bytes()
    except OSError as error:
        raise BadInput(f"{page} cannot be read: {error.strerror}") from error
    found = _RECORD.search(data)
    if found is None:
        hint = "give the HTML file that report wrote"
        raise BadInput(f"{page} is no report: it holds no record of ghostdeploy", hint=hint)
    return decode(found[1], where=str(page)), data.decode("utf-8", "replace")


def _embedded(report: Report) -> str:
    text = msgspec.json.encode(report).decode()
    for character, escape in _ESCAPED.items():
        text = text.replace(character, escape)
    return text

"""`report FILE.html --check`: the record inside a page against the files it was made from, the page against the record.

record    its digest is its own, its schema ours
files     every bundle, receipt and diagnosis is read again: each field that differs is named
answers   bundles run again where machine and engines are the same; elsewhere another processor may round otherwise
page      is what the record gives, where the versions are the same
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.report.answers import ask
from ghostdeploy.deploy.report.collect import collect, tools
from ghostdeploy.deploy.report.page import read, render
from ghostdeploy.deploy.report.sources import find
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.progress import Stages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ghostdeploy.deploy.report.records import Answers, Report
    from ghostdeploy.progress import Listener

_NAMED = 20
"""Differences that are named."""


class CheckedReport(Record, frozen=True, kw_only=True):
    """What a check found."""

    report: str
    differences: tuple[str, ...]
    """One sentence each; none where all is equal."""
    not_compared: tuple[str, ...]
    """What could not be compared here, and why."""
    bundles: int
    receipts: int


def check(page: Path, listener: Listener | None = None) -> CheckedReport:
    """Checks a page against the files beside it.

    Args:
        page: The HTML file; bundles and receipts are where they were, seen from its folder.
        listener: Receives the progress.

    Raises:
        BadInput: It is no report, or its record was altered.
    """
    said, text = read(page)
    differences: list[str] = []
    skipped: list[str] = []
    if said.tools != tools():
        skipped.append(f"the text of the page: it was made by {_versions(said.tools)}, here is {_versions(tools())}")
    elif (wrong := _shown_otherwise(said, page, text)) is not None:
        differences.append(wrong)
    paths = [page.parent / one.path for model in said.models for one in model.bundles]
    paths += dict.fromkeys(page.parent / run.receipt for model in said.models for run in model.runs)
    held = (one.file for model in said.models for bundle in model.bundles for one in bundle.held)
    paths += dict.fromkeys(page.parent / file for file in held)
    try:
        found = find(paths)
        again = collect(found, page)
        again = _answered(
            said, again, lambda report, data: ask(report, found.bundles, data, page, Stages(listener)), skipped, page
        )
    except GhostDeployError as error:
        differences.append(error.message)
    else:
        differences += _files(said, again)
    return CheckedReport(
        report=str(page),
        differences=tuple(differences[:_NAMED]),
        not_compared=tuple(skipped),
        bundles=sum(len(model.bundles) for model in said.models),
        receipts=len({run.receipt for model in said.models for run in model.runs}),
    )


def _shown_otherwise(said: Report, page: Path, text: str) -> str | None:
    """Returns how a page is not what its record gives; None where it is."""
    try:
        shown = render(said, page.name)
    except Exception as error:  # a record that was made up may hold what templates and charts cannot show
        return f"the page is not what its record gives: that cannot be shown ({type(error).__name__})"
    return None if shown == text else "the page is not what its record gives: text, figures or charts were changed"


def _answered(said: Report, again: Report, asking: Any, skipped: list[str], page: Path) -> Report:
    """Returns the report read again, with answers asked again where they can be equal."""
    sets = {None if m.answers is None else m.answers.data for m in said.models if m.answers is not None}
    if not sets:
        return again
    (data,) = list(sets)[:1]
    asked: Report = asking(again, None if data is None else page.parent / data)
    models = []
    for was, now, plain in zip(said.models, asked.models, again.models, strict=False):
        same = _made_by(was.answers) == _made_by(now.answers)
        if not same:
            skipped.append(
                f"what the bundles of {was.name} answer: {_made_by(was.answers)}, here {_made_by(now.answers)}"
            )
        source = now if same else was
        models.append(
            msgspec.structs.replace(plain, answers=source.answers, no_answers_because=source.no_answers_because)
        )
    return msgspec.structs.replace(asked, models=tuple(models))


def _made_by(answers: Answers | None) -> str:
    if answers is None:
        return "none were asked"
    return f"{answers.machine}; {', '.join(dict.fromkeys(answers.engines.values()))}"


def _files(said: Report, again: Report) -> Iterator[str]:
    """Yields a sentence for each field that is not what the files give."""
    ours, files = ({"models": msgspec.to_builtins(one.models), "verdict": one.verdict} for one in (said, again))
    yield from _differing(ours, files, "")


def _differing(ours: Any, files: Any, place: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(files, dict):
        for key in dict.fromkeys((*ours, *files)):
            yield from _differing(ours.get(key), files.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(ours, (list, tuple)) and isinstance(files, (list, tuple)) and len(ours) == len(files):
        for number, pair in enumerate(zip(ours, files, strict=True)):
            yield from _differing(*pair, f"{place}.{number}")
    elif ours != files:
        yield f"{place} is {_short(ours)} in the report, {_short(files)} in the files"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())

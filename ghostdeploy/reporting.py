"""The command `report`; the device wheel has it not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ghostdeploy.errors import GhostDeployError, MissingDependency, UsageError
from ghostdeploy.terminal.console import Bars, GivenPath, common
from ghostdeploy.terminal.layout import note, stacked, table, verdict
from ghostdeploy.terminal.output import print_json, say, say_lines

if TYPE_CHECKING:
    from ghostdeploy.deploy.report.check import CheckedReport
    from ghostdeploy.deploy.report.records import Evidence, Report

_PAGE = Path("report.html")


@click.command()
@click.argument("sources", nargs=-1, required=True, type=GivenPath())
@click.option("-o", "--out", type=GivenPath(), metavar="FILE", help="The page; report.html by default.")
@click.option(
    "--data",
    type=GivenPath(),
    metavar="PATH",
    help="Labelled images to compare answers on, in place of the golden images.",
)
@click.option(
    "--diagnose", "diagnoses", is_flag=True, help="Run every bundle block by block; a JSON file of each is kept."
)
@click.option("--markdown", is_flag=True, help="Print Markdown for a pull request; with -o write it there.")
@click.option("--check", "checks", is_flag=True, help="Read a page and the files beside it again; 1 where they differ.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@common
def report(
    sources: tuple[Path, ...],
    out: Path | None,
    data: Path | None,
    *,
    diagnoses: bool,
    markdown: bool,
    checks: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Put the evidence of bundles and receipts on one page.

    SOURCES are bundles, receipts, what `diagnose --json` printed, and folders of them. The page is one HTML file that
    needs no network: verdicts, provenance, fold certificate, parity and accuracy, agreement between targets, layers,
    speed, devices, and images whose answer changed.
    """
    _require_libraries()
    if checks:
        if len(sources) != 1 or out is not None or data is not None or markdown or diagnoses:
            raise UsageError("--check takes one page and nothing else", hint="ghostdeploy report FILE.html --check")
        return _check(sources[0], as_json=as_json)
    from ghostdeploy.deploy.report import markdown as lines
    from ghostdeploy.deploy.report.make import make_report, require_free, write_page, write_text

    page = out or _PAGE
    if writes := out is not None or not markdown:
        require_free(page, force=force)
    with Bars() as bars:
        if diagnoses:
            sources = (*sources, *_diagnosed(sources, page, bars, force=force))
        found = make_report(sources, page, data=data, listener=bars)
    size = None
    if writes:
        size = write_text(lines.render(found), page) if markdown else write_page(found, page, force=force)
    if as_json:
        print_json(found)
    elif size is None:
        say_lines(lines.render(found).rstrip("\n"))
    else:
        _written(found, page, size)
    return 0


def _diagnosed(sources: tuple[Path, ...], page: Path, bars: Bars, *, force: bool) -> list[Path]:
    """Runs the bundles that have no live diagnosis yet; returns the files of what was found, beside the page."""
    from ghostdeploy.deploy.report.make import require_free, write_text
    from ghostdeploy.deploy.report.sources import find
    from ghostdeploy.progress import Stages
    from ghostdeploy.terminal.output import json_text
    from ghostdeploy.terminal.references import diagnosed

    found, stages, files = find(sources), Stages(bars), []
    known = {one.digest for one in found.looked if one.live.there is None}
    for number, bundle in enumerate(found.bundles):
        name = bundle.path.name
        file = page.with_name(f"{page.stem}-{number}-{name}.json")
        if bundle.manifest.digest in known:
            continue
        require_free(file, force=force)
        try:
            with stages.stage(f"diagnose {name}"):
                one = diagnosed(bundle.path, None, recorded=False, model=None, weights=None)
        except GhostDeployError as error:
            note(f"no live diagnosis of {name}: {error.message}")
            continue
        if one.live is None:
            note(f"no live diagnosis of {name}: {one.not_live}")
            continue
        write_text(json_text(one.document()), file)
        files.append(file)
    return files


def _require_libraries() -> None:
    """Raises `MissingDependency` where what makes pages is not installed."""
    for name in ("jinja2", "matplotlib"):
        try:
            __import__(name)
        except ImportError as error:
            raise MissingDependency(
                f"report needs {name}, which is not installed", hint='pip install "ghostdeploy[report]"'
            ) from error


def _check(page: Path, *, as_json: bool) -> int:
    from ghostdeploy.deploy.report.check import check

    with Bars() as bars:
        found = check(page, bars)
    print_json(found) if as_json else _checked(found)
    return int(bool(found.differences))


def _checked(found: CheckedReport) -> None:
    word = "failed" if found.differences else "passed"
    rows = [(found.report, str(found.bundles), str(found.receipts), verdict(word), stacked(found.differences))]
    table(("report", ">bundles", ">receipts", "verdict", "what differs"), rows)
    for one in found.not_compared:
        note(f"not compared: {one}")


def _written(found: Report, page: Path, size: int) -> None:
    rows = [
        (one.key, one.manifest.name, verdict(one.verdict), _weakest(one))
        for model in found.models
        for one in model.bundles
    ]
    table(("", "bundle", "verdict", "weakest layer"), rows)
    say(f"{page}, {size / 1e6:.2f} MB")


def _weakest(one: Evidence) -> str:
    """Returns the wrong block of a live diagnosis, else the layer that lost most when it was quantized."""
    from ghostdeploy.deploy.prove.layerwise.records import named

    wrong = next((held.live.wrong[0] for held in one.held if held.live.wrong), None)
    if wrong is not None:
        return f"{named(wrong.layers, wrong.readers)} (wrong)"
    return one.worst.module if one.worst else ""

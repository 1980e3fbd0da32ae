"""The command `report`; the device wheel has it not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ghostdeploy.errors import MissingDependency, UsageError
from ghostdeploy.terminal.console import Bars, GivenPath, common
from ghostdeploy.terminal.layout import note, stacked, table, verdict
from ghostdeploy.terminal.output import print_json, say, say_lines

if TYPE_CHECKING:
    from ghostdeploy.deploy.report.check import CheckedReport
    from ghostdeploy.deploy.report.records import Report

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
@click.option("--markdown", is_flag=True, help="Print Markdown for a pull request; with -o write it there.")
@click.option("--check", "checks", is_flag=True, help="Read a page and the files beside it again; 1 where they differ.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@common
def report(
    sources: tuple[Path, ...],
    out: Path | None,
    data: Path | None,
    *,
    markdown: bool,
    checks: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Put the evidence of bundles and receipts on one page.

    SOURCES are bundles, receipts, and folders of both. The page is one HTML file that needs no network: verdicts,
    provenance, fold certificate, parity and accuracy, agreement between targets, layers, speed, devices, and images
    whose answer changed.
    """
    _require_libraries()
    if checks:
        if len(sources) != 1 or out is not None or data is not None or markdown:
            raise UsageError("--check takes one page and nothing else", hint="ghostdeploy report FILE.html --check")
        return _check(sources[0], as_json=as_json)
    from ghostdeploy.deploy.report import markdown as lines
    from ghostdeploy.deploy.report.make import make_report, require_free, write_page, write_text

    page = out or _PAGE
    if writes := out is not None or not markdown:
        require_free(page, force=force)
    with Bars() as bars:
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
        (one.key, one.manifest.name, verdict(one.manifest.verdict), one.worst.module if one.worst else "")
        for model in found.models
        for one in model.bundles
    ]
    table(("", "bundle", "verdict", "weakest layer"), rows)
    say(f"{page}, {size / 1e6:.2f} MB")

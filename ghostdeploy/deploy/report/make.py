"""From paths to a report, and a report to its file, which appears whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ghostdeploy.deploy.report.answers import ask
from ghostdeploy.deploy.report.collect import collect
from ghostdeploy.deploy.report.page import render
from ghostdeploy.deploy.report.records import sealed
from ghostdeploy.deploy.report.sources import find
from ghostdeploy.errors import OutputError, UsageError
from ghostdeploy.files import write_failure, write_whole
from ghostdeploy.progress import Stages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ghostdeploy.deploy.report.records import Report
    from ghostdeploy.progress import Listener


def make_report(
    paths: Sequence[str | os.PathLike[str]],
    page: Path,
    *,
    data: str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
) -> Report:
    """Returns the report of bundles, receipts, and folders of both; bundles run on images in their engines.

    Args:
        paths: See `sources.find`.
        page: Where its file will be: paths in it start there.
        data: A labelled set whose images are asked about in place of the golden ones.
        listener: Receives the progress.

    Raises:
        BundleError: See `sources.find`.
        DataError: The set is damaged, or not one for a model.
    """
    stages = Stages(listener)
    with stages.stage("read"):
        found = find(paths)
        plain = collect(found, page)
    return sealed(ask(plain, found.bundles, data, page, stages))


def write_page(report: Report, page: Path, *, force: bool = False) -> int:
    """Writes the HTML file of a report; returns its size in bytes.

    Args:
        report: See `make_report`.
        page: The file.
        force: Replace one that is there.

    Raises:
        OutputError: It cannot be written.
        UsageError: Something has its name, and `force` is not set.
    """
    require_free(page, force=force)
    return write_text(render(report, page.name), page)


def require_free(page: Path, *, force: bool) -> None:
    """Raises `UsageError` where a file exists that may not be replaced, or a folder."""
    if os.path.isdir(page):  # noqa: PTH112 - pathlib's raises where a name is too long
        raise UsageError(f"{page} is a folder, expected a file", hint=f"-o {page / 'report.html'}")
    if not force and os.path.lexists(page):
        raise UsageError(f"{page} exists already", hint="add --force to replace it, or choose another -o")


def write_text(text: str, page: Path) -> int:
    """Writes a file of text that appears whole; returns its size in bytes.

    Raises:
        OutputError: It cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the report {page} cannot be written: {write_failure(error)}") from error
    write_whole(page, data, what="the report")
    return len(data)

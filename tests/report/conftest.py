"""Bundles, receipts and pages that the tests of reports share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ghostdeploy.deploy.report.make import make_report, write_page
from tests.broken import break_block
from tests.bundles import make_bundle
from tests.commands import run
from tests.exported import sample_bundle
from tests.shared import shared_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with a float and an INT8 bundle of the tiny network."""
    with shared_folder(tmp_path_factory, "report-tiny") as folder:
        out = folder / "bundles"
        for precision in ("fp32", "int8"):
            if not (out / f"tiny-onnx-{precision}").exists():
                make_bundle(out, "onnx", precision=precision)
    return out


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The float, the INT8, and a broken INT8 bundle of the trained classifier."""
    floating = sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision="fp32")
    sound = sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision="int8")
    with shared_folder(tmp_path_factory, "report-broken") as folder:
        broken = folder / "broken"
        if not broken.exists():
            break_block(sound, floating, broken)
    return floating, sound, broken


@pytest.fixture
def proven(tiny, tmp_path, capsys):
    """The tiny bundles and a receipt of each in one folder that may be changed."""
    import shutil

    folder = tmp_path / "evidence"
    shutil.copytree(tiny, folder)
    bundles = sorted(path for path in folder.iterdir() if path.is_dir())
    assert run(capsys, "verify", *bundles, "--receipt", folder / "home.json").code == 0
    return folder


@pytest.fixture
def written(proven):
    """The page of that folder, beside it."""
    page = proven.parent / "report.html"
    write_page(make_report([proven], page), page)
    return page


def record_of(page: Path):
    """Returns the record of a page."""
    from ghostdeploy.deploy.report.page import read

    return read(page)[0]

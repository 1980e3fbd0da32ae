"""The site builds without a warning, holds the whole public API, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ghostdeploy as gd

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_site_builds_and_stands_alone(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    written = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert written <= pages.keys()
    api = pages["api.html"].read_text("utf-8")
    assert [name for name in gd.__all__ if not re.search(rf"id=\"[\w.-]*\.{name}\"", api)] == []
    for name, path in pages.items():
        text = path.read_text("utf-8")
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+"', text) == [], name

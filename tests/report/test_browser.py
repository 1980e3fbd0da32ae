"""The page in headless Chromium: silent, alone, readable in every width and theme and on paper, true to its record."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ghostdeploy import samples
from ghostdeploy.deploy.report.make import make_report, write_page
from tests.bundles import Tiny, make_bundle
from tests.commands import run
from tests.conftest import refuse, require_program
from tests.planted import plant
from tests.shared import shared_folder

HOME = Path(__file__).parent / "browser"
PATIENCE = 500.0
"""Seconds, on whatever machine."""


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A folder with the scripts and what npm installs for them by the lock file."""
    npm = require_program("npm")
    require_program("chromium")
    with shared_folder(tmp_path_factory, "report-browser") as folder:
        if not (folder / "node_modules").exists():
            for file in HOME.glob("*.js*"):
                shutil.copy(file, folder)
            quiet = ["--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(
                [npm, "ci", *quiet, "--prefix", folder], capture_output=True, text=True, check=False, cwd=folder
            )
            if done.returncode:
                shutil.rmtree(folder / "node_modules", ignore_errors=True)
                refuse("npm", f"npm ci failed: {done.stderr.strip()[-300:]}")
    return folder


def look(browser, page, tmp_path):
    """Returns what `inspect.js` saw."""
    command = ["node", browser / "inspect.js", require_program("chromium"), tmp_path / "profile", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PAGES = ("a broken bundle, labels and latency", "tiny bundles alone", "live diagnoses", "long names", "two models")


@pytest.fixture(params=PAGES)
def page(request, trained, tiny, tmp_path, capsys):
    path, data = tmp_path / "report.html", None
    if request.param == "tiny bundles alone":
        sources = [tiny]
    elif request.param == "live diagnoses":
        float_bundle, sound = (tiny / f"tiny-onnx-{precision}" for precision in ("fp32", "int8"))
        wrong = plant(sound, tmp_path / "wrong", "depthwise", "permuted")
        sources = [float_bundle, sound, wrong]
        for path_of_one in (sound, wrong):
            file = tmp_path / f"{path_of_one.name}.json"
            file.write_text(run(capsys, "diagnose", path_of_one, float_bundle, "--json").out, "utf-8")
            sources.append(file)
    elif request.param == "two models":
        sources = [tiny, trained[1]]
    elif request.param == "long names":
        out = tmp_path / ("a long name of a folder without any place to break it " * 3).replace(" ", "_")
        sources = [make_bundle(out, "onnx", tiny=Tiny(side=True)), make_bundle(out, "onnx", precision="int8")]
    else:
        receipt = tmp_path / "bench.json"
        assert run(capsys, "bench", *trained[:2], "--rounds", "8", "--receipt", receipt).code == 0
        sources, data = [*trained, receipt], samples.evaluation_set()
    write_page(make_report(sources, path, data=data), path)
    return path


@pytest.mark.slow
def test_the_page_is_silent_alone_readable_and_true(browser, page, tmp_path):
    seen = look(browser, page, tmp_path)

    assert seen["console"] == []
    assert {one for one in seen["requests"] if one != page.as_uri()} == set()
    assert seen["numbers"]["wrong"] == []
    assert seen["numbers"]["shown"] > 20
    assert [(one["theme"], one["width"]) for one in seen["looks"]] == [
        *((theme, width) for theme in ("light", "dark") for width in (360, 768, 1440)),
        ("print", 718),
    ]
    for one in seen["looks"]:
        where = f"{one['theme']} {one['width']}"
        assert one["texts"] > 50, where
        assert one["overlaps"] == [], where
        assert one["cut"] == [], where
        assert one["wide"] <= 0, where
        assert one["axe"] == [], where
    assert sum(" SUMMARY " in one for one in seen["tabs"]) > 0
    assert len(seen["tabs"]) > 10

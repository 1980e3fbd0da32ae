"""docs/samples.md and docs/mobile.md: the modules that they run exist and know the options; every sample is listed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ghostdeploy import samples

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "samples.md", ROOT / "docs" / "mobile.md"]
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES)
COMMANDS = sorted(set(re.findall(r"python -m (ghostdeploy\.samples(?:\.\w+)+)([^\n`)]*)", TEXT)))
APPS = {
    path.stem if path.suffix else path.name
    for path in Path(samples.__file__).parent.iterdir()
    if (path / "__main__.py").is_file()
    or (
        path.suffix == ".py"
        and path.stem not in {"__init__", "demo", "records"}
        and "train_" not in path.stem
        and "prepare_" not in path.stem
    )
}


@pytest.fixture(scope="module")
def usage():
    """A function: module → its help text."""
    texts = {}

    def ask(module):
        if module not in texts:
            command = [sys.executable, "-m", module, "--help"]
            texts[module] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return texts[module]

    return ask


@pytest.mark.parametrize(("module", "rest"), COMMANDS)
def test_every_sample_command_in_the_docs_has_these_options(usage, module, rest):
    known = usage(module)

    used = [word for word in shlex.split(rest.replace("…", "")) if word.startswith("-")]

    assert [option for option in used if not re.search(rf"(?<![\w-]){re.escape(option)}\b", known)] == []


def test_every_sample_is_on_the_page():
    page = (ROOT / "docs" / "samples.md").read_text("utf-8")

    assert {name for name in APPS if f"python -m ghostdeploy.samples.{name}" not in page} == set()
    assert {"classify_image", "classify_stream", "serve", "cpp", "mobile", "browser"} <= APPS


def test_files_named_in_the_commands_are_there():
    paths = set(re.findall(r"ghostdeploy/samples/data/\S+", "\n".join(rest for _, rest in COMMANDS)))

    assert [path for path in paths if not list(ROOT.glob(path))] == []
    assert paths

"""docs/embedding.md is for app developers: its programs run as they stand, and its tables are complete."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy import targets
from tests.bundles import Tiny

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "embedding.md").read_text("utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def app(tiny_bundle, tmp_path, monkeypatch):
    """A folder with what the programs name, and the names they are given."""
    shutil.copytree(tiny_bundle("openvino"), tmp_path / "build" / "ghostnet_050-openvino-fp32")
    Image.fromarray(Tiny().images(1)[0]).save(tmp_path / "shoe.png")
    monkeypatch.chdir(tmp_path)
    return {"batch": Tiny().example(2)["input"], "frames": [Tiny().example(1)["input"]] * 9}


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_every_program_runs(program, app):
    exec(compile(program, "docs/embedding.md", "exec"), app)

    assert "logits" not in app or app["logits"].shape == (2, 10)
    assert "answers" not in app or app["answers"]


def test_every_option_of_load_is_in_the_table():
    options = [name for name in inspect.signature(gd.load).parameters if name != "path"]

    assert [name for name in options if f"| `{name}` |" not in PAGE] == []


def test_every_key_of_info_is_explained(app):
    with gd.load("build/ghostnet_050-openvino-fp32") as model:
        table = PAGE[PAGE.index("| key | meaning |") :]
        assert [key for key in model.info() if f"`{key}`" not in table] == []


def test_every_target_has_its_line():
    for row in targets.TARGETS.values():
        assert f'| `{row.name}` | `pip install "{row.runtime_requirement}"` |' in PAGE

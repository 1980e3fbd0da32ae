"""A task of another distribution: export, manifest, `run` and `eval` know it without a change here."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ghostdeploy as gd
from ghostdeploy.tasks import table
from tests.commands import run

CODE = """
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ghostdeploy.tasks.base import Agreed, Table, Task
from ghostdeploy.tasks.measure import Drop, Measure
from ghostdeploy.tasks.table import TaskRow


class Count(Task):
    decision = "counts"

    def roles(self, outputs):
        return {name: None if index else "count" for index, name in enumerate(outputs)}

    def agree(self, got, reference):
        ours, wanted = (np.rint(next(iter(one.values()))) for one in (got, reference))
        return Agreed(int((ours == wanted).sum()), wanted.size)

    def predict(self, outputs, seen):
        return int(np.rint(next(iter(outputs.values()))[0, 0]))

    def document(self, found):
        return {"count": found}

    def table(self, found):
        return Table((">count",), [(str(found),)])


@dataclass
class Counted:
    source: str
    images: tuple
    sizes: np.ndarray
    counts: list


def read(path):
    table = json.loads(Path(path).read_text())
    images = tuple(Path(path).parent / name for name in table)
    return Counted(str(path), images, np.full((len(images), 2), 40), list(table.values()))


class Error(Measure):
    main = "right"

    def __init__(self, task, data, classes):
        super().__init__(task, data, classes)
        self.right = {}

    def add(self, index, outputs, seen):
        self.right[index] = self.task.predict(outputs, seen) == self.data.counts[index]

    def figures(self):
        return {"right": sum(self.right.values()) / len(self.right)}

    def drop(self, reference):
        lost = reference.figures()["right"] - self.figures()["right"]
        return Drop(lost, (lost, lost))


ROW = TaskRow(
    name="count", summary="a number", task="counting:Count", data="counting:read", measure="counting:Error"
)
"""


def installed(folder, code, point):
    (folder / "counting.py").write_text(code)
    facts = folder / "counting-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[ghostdeploy.tasks]\ncount = {point}\n")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    installed(tmp_path, CODE, "counting:ROW")
    monkeypatch.syspath_prepend(str(tmp_path))
    table.tasks.cache_clear()
    yield tmp_path
    table.tasks.cache_clear()


class Brightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x).abs().mean((1, 2, 3))[:, None] * 4


def test_it_is_known_everywhere(plugin, capsys):
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(plugin / f"{index}.png")

    bundle = gd.export(Brightness(), target="onnx", task="count", preprocess={"size": 32}, out=plugin / "out")
    with gd.load(bundle.path) as runtime:
        counts = {f"{index}.png": runtime.predict(plugin / f"{index}.png") for index in range(6)}
    (plugin / "counts.json").write_text(str(counts).replace("'", '"'))
    shown = run(capsys, "run", bundle.path, plugin / "0.png", "--json")
    measured = run(capsys, "eval", bundle.path, "--data", plugin / "counts.json", "--json")

    assert (bundle.manifest.task.name, bundle.manifest.outputs[0].role) == ("count", "count")
    assert shown.document[0]["count"] == counts["0.png"]
    assert measured.document[0]["figures"] == {"right": 1.0}


def test_one_that_cannot_be_imported_is_a_warning(tmp_path, monkeypatch, caplog):
    installed(tmp_path, "", "no_such_module:ROW")
    monkeypatch.syspath_prepend(str(tmp_path))
    table.tasks.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert list(table.tasks()) == [row.name for row in table.ROWS]
    finally:
        table.tasks.cache_clear()
    assert "task count of counting cannot be used" in caplog.text

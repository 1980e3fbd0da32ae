"""The sample networks for other tasks are what their cards say, and the script that made them runs."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from importlib import import_module

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ghostdeploy.errors import DataError
from ghostdeploy.models.checkpoint import read_checkpoint
from ghostdeploy.models.loading import load_state
from ghostdeploy.samples.records import RECORDS
from ghostdeploy.samples.scenes import train, training_sets
from ghostdeploy.samples.scenes.figures import figures

LEAST = {"map": 0.39, "accuracy": 0.75, "miou": 0.42}
MOST = {"nme": 0.06}
"""What the networks that ship reach: those that come after them are no worse."""


def built(record):
    module, _, function = record.factory.partition(":")
    return getattr(import_module(module), function)().eval()


def header(record):
    with safe_open(record.weights, framework="pt") as file:
        return file.metadata()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
def test_a_sample_is_as_good_as_its_card_says(record):
    checkpoint = read_checkpoint(record.weights)
    model = built(record)
    load_state(model, checkpoint.state, source=record.name)
    said = header(record)
    card = record.weights.with_suffix(".md").read_text("utf-8")

    measured = figures(record, lambda images: train.outputs(model, images))

    promised = json.loads(said["figures"])
    assert measured == pytest.approx(promised, abs=0.005)
    assert all(measured[name] >= least for name, least in LEAST.items() if name in measured)
    assert all(measured[name] <= most for name, most in MOST.items() if name in measured)
    assert all(f"| {value:.4f} |" in card for value in promised.values())
    assert f"`{said['command']}`" in card
    assert f"Licence of the weights: {said['licence']}." in card


@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
def test_weights_are_small_and_in_half_precision(record):
    assert {value.dtype for value in load_file(record.weights).values()} == {torch.float16}
    assert record.weights.stat().st_size <= 1_500_000
    assert header(record)["sample"] == record.name


@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
def test_the_command_in_the_header_is_one_the_script_takes(record, tmp_path):
    words = shlex.split(header(record)["command"])

    with pytest.raises(DataError, match="cannot be read"):  # the options parse, only the data are missing
        train.main([*words[3:], "--source", str(tmp_path / "none"), "--out", str(tmp_path)])


@pytest.fixture
def source(tmp_path):
    """Returns a folder with a training split of 40 random items."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28), np.uint8), np.arange(40, dtype=np.uint8) % 10
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = b"\x00\x00\x08" + bytes([array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
        (tmp_path / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return tmp_path


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", list(RECORDS))
def test_the_script_trains_a_resumable_network(name, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_sets, "SCENES", 4)
    monkeypatch.setattr(training_sets, "IDENTITIES", 2)
    monkeypatch.setattr(training_sets, "VIEWS", 2)
    out = tmp_path / "out"
    words = [name, "--source", str(source), "--out", str(out), "--batch", "2"]

    train.main([*words, "--epochs", "1"])
    train.main([*words, "--epochs", "2"])

    assert re.findall(r"epoch (\d)", capsys.readouterr().out) == ["1", "2"]
    load_state(built(RECORDS[name]), read_checkpoint(out / f"{name}.safetensors").state, source=name)
    assert "--epochs 2 --rate 0.002 --batch 2 --seed 0`" in (out / f"{name}.md").read_text("utf-8")


def test_training_does_not_overwrite_a_model_that_it_did_not_make(tmp_path, capsys):
    (tmp_path / "ghost_pfld.safetensors").write_text("years of work")

    with pytest.raises(SystemExit):
        train.main(["ghost_pfld", "--out", str(tmp_path)])

    assert "exists already and is not of a training run to resume" in capsys.readouterr().err

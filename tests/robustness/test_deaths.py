"""`kill -9` at any change of files: what has its name is whole, the next run succeeds, and nothing is left beside it.

The number of changes that a command makes is counted first; then it is killed at numbers that a seed draws, at once or
a few milliseconds later. `make fuzz` kills each command fifty times, `make test` a few times.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from xml.etree import ElementTree

import pytest

from ghostdeploy import samples
from ghostdeploy.bundle.signature import Trust
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.deploy.report.page import read as read_page
from ghostdeploy.device import receipt as receipts
from ghostdeploy.distribute.forms import FORMS
from ghostdeploy.supply.sign import make_key, sign

pytest.importorskip("fcntl", reason="what a killed process left is told from what a living one has by a lock")

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
KILLS = 50 if MANY else 3
NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(8, 10))
"""


def points(changes, seed):
    """Yields when to kill: the number of a change, and seconds after it."""
    draw = random.Random(seed)
    numbers = draw.sample(range(1, changes + 1), min(KILLS, changes)) if MANY else []
    while len(numbers) < KILLS:
        numbers.append(draw.randint(1, changes))
    for number, at in enumerate(sorted(numbers)):
        yield at, draw.choice((0.0, draw.uniform(0, 0.005), draw.uniform(0, 0.05))) if number % 2 else 0.0


def hidden(folder):
    """What begins with a dot below a folder, and is no part of a package."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob(".*")
        if path.name not in {".gitattributes", ".ghostdeploy"}
    )


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:net", "--image-size", "32", "-t", "onnx"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("openvino"), tmp_path / "net")


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True], ids=["new", "replaced"])
def test_a_killed_export_leaves_a_whole_bundle_or_none(net, commands, tmp_path, force):
    out = tmp_path / "out"
    words = ("export", *net, "-o", out, *["--force"] * force)
    commands.done(*words)
    shutil.rmtree(out) if not force else None
    changes = commands.done(*words)

    for at, delay in points(changes, seed=1):
        if not force:
            shutil.rmtree(out, ignore_errors=True)
        code = commands(*words, at=at, delay=delay)["code"]

        made = [path for path in out.iterdir() if not path.name.startswith(".")] if out.exists() else []
        assert all(verify(path).verdict == "passed" for path in made), at
        assert code in (-9, 0), at
        if force or code == 0:
            assert [path.name for path in made] == ["net-onnx-fp32"], at
        commands.done(*words[:-1], "--force") if force else commands.done(*words, *["--force"] * bool(made))
        assert [path.name for path in out.iterdir()] == ["net-onnx-fp32"], at


@pytest.mark.slow
def test_a_killed_eval_leaves_whole_evidence_or_that_of_before(bundle, images, commands, tmp_path):
    receipt, junit = tmp_path / "receipt.json", tmp_path / "junit.xml"
    words = ("eval", bundle, "--data", images, "--receipt", receipt, "--junit", junit)
    changes = commands.done(*words)
    before = sorted(path.name for path in tmp_path.iterdir())

    for at, delay in points(changes, seed=2):
        commands(*words, at=at, delay=delay)

        assert len(receipts.read(receipt)) == 1
        ElementTree.parse(junit)
        commands.done(*words)
        assert sorted(path.name for path in tmp_path.iterdir()) == before, at


@pytest.mark.slow
def test_a_killed_sign_leaves_the_old_signature_or_the_new_one(bundle, commands, tmp_path):
    make_key(tmp_path / "key")
    trust = Trust([tmp_path / "key.pub"], at_least="1.0")
    sign(bundle, tmp_path / "key", release="1.0")
    before = sorted(path.name for path in bundle.iterdir())
    changes = commands.done("sign", bundle, "--key", tmp_path / "key", "--release", "1.1")

    for number, (at, delay) in enumerate(points(changes, seed=3)):
        words = ("sign", bundle, "--key", tmp_path / "key", "--release", f"2.{number}")
        commands(*words, at=at, delay=delay)

        assert verify(bundle, trust=trust).signature is not None
        commands.done(*words)
        assert sorted(path.name for path in bundle.iterdir()) == before, at


@pytest.mark.slow
def test_a_killed_report_leaves_a_whole_page_or_that_of_before(bundle, commands, tmp_path):
    page = tmp_path / "report.html"
    words = ("report", bundle, "-o", page, "--force")
    changes = commands.done(*words)

    for at, delay in points(changes, seed=4):
        commands(*words, at=at, delay=delay)

        read_page(page)
        commands.done(*words)
        assert hidden(tmp_path) == [], at


def whole(out, form):
    """What is there of a form is whole."""
    if form in {"triton", "ovms"}:
        made = list(out.glob("*/[0-9]*"))
    elif form == "huggingface":
        made = [path for path in out.glob("*") if not path.name.startswith(".")]
    else:
        made = []
        if (out / "index.json").exists():
            for one in json.loads((out / "index.json").read_bytes())["manifests"]:
                assert (out / "blobs" / "sha256" / one["digest"].removeprefix("sha256:")).is_file()
    return [verify(path).verdict for path in made]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_killed_package_leaves_whole_things_and_the_next_succeeds(bundle, commands, tmp_path, form):
    out = tmp_path / "out"
    words = ("package", bundle, "--for", form, "-o", out)
    changes = commands.done(*words)

    for at, delay in points(changes, seed=5):
        shutil.rmtree(out, ignore_errors=True)
        commands(*words, at=at, delay=delay)

        assert set(whole(out, form)) <= {"passed"}, at
        code = commands(*words)["code"]
        if code != 0 and form == "huggingface":  # the folder is there, whole
            code = commands(*words, "--name", "other")["code"]
        assert code == 0, at
        assert set(whole(out, form)) <= {"passed"}, at
        assert hidden(out) == [], at


@pytest.mark.slow
def test_a_killed_tune_goes_on_and_leaves_whole_bundles(net, commands, tmp_path):
    out = tmp_path / "out"
    data = ("--data", samples.evaluation_set())
    words = ("tune", *net[:3], *data, "-t", "onnx", "--precision", "fp32", "--budget", "0.01", "-o", out)
    changes = commands.done(*words)

    for at, delay in points(changes, seed=6):
        shutil.rmtree(out)
        commands(*words, at=at, delay=delay)

        for made in out.glob("**/manifest.json"):
            if not any(part.startswith(".") for part in made.relative_to(out).parts):
                assert verify(made.parent).verdict == "passed", (at, made)
        commands.done(*words)
        assert (out / "net-onnx-fp32" / "manifest.json").is_file(), at
        assert hidden(out) == [], at

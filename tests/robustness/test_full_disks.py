"""A full disk: exit code 4, one sentence, nothing half, nothing lost, and the same command succeeds when there is room.

The disk is full from a change on that a seed draws, whatever the machine allows; and a small file system is really
full, where one can be mounted. `make fuzz` fills each command's disk twenty times, `make test` a few times.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from xml.etree import ElementTree

import pytest

from ghostdeploy.bundle.signature import Trust
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.deploy.report.page import read as read_page
from ghostdeploy.device import receipt as receipts
from ghostdeploy.distribute.forms import FORMS
from ghostdeploy.supply.sign import make_key, sign
from tests.robustness.test_deaths import NET, hidden, whole

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
TIMES = 20 if MANY else 3
PAGE = 4096


def full(commands, words, seed, changes):
    """Yields what a command said whose disk was full from some change on."""
    draw = random.Random(seed)
    for _ in range(TIMES):
        at = draw.randint(1, changes)
        found = commands(*words, at=at, full=True)
        told(found)
        yield found["code"]


def told(found):
    """The command succeeded, or said in one sentence that something cannot be written."""
    said = found["err"]
    assert found["code"] in (0, 4), found
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == int(found["code"] == 4), said
    assert all("cannot be written: no space left" in line or "could not write" in line for line in errors), said


@contextmanager
def small(folder, size):
    """A file system of `size` bytes at a folder; skips the test where none can be mounted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return "export", f"{tmp_path / 'net.py'}:net", "--image-size", "32", "-t", "onnx", "-o"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("openvino"), tmp_path / "net")


@pytest.mark.slow
def test_an_export_leaves_the_bundle_of_before(net, commands, tmp_path):
    out = tmp_path / "out"
    words = (*net, out, "--force")
    commands.done(*words)
    changes = commands.done(*words)
    codes = set()

    for code in full(commands, words, 1, changes):
        codes.add(code)
        assert [path.name for path in out.iterdir()] == ["net-onnx-fp32"]
        assert verify(out / "net-onnx-fp32").verdict == "passed"

    assert 4 in codes
    commands.done(*words)


@pytest.mark.slow
def test_an_export_to_a_small_file_system_leaves_nothing_or_a_bundle(net, commands, tmp_path):
    draw, codes = random.Random(2), set()
    commands.done(*net, tmp_path / "whole")
    need = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*"))
    for _ in range(TIMES):
        with small(tmp_path / "small", int(draw.uniform(0.05, 3) * need) + PAGE) as place:
            found = commands(*net, place / "out")
            told(found)
            codes.add(found["code"])
            made = list((place / "out").glob("*")) + hidden(place) if (place / "out").exists() else []
            assert len(made) == int(found["code"] == 0), made
    assert 4 in codes


def test_sign_leaves_the_old_signature(bundle, commands, tmp_path):
    make_key(tmp_path / "key")
    sign(bundle, tmp_path / "key", release="1.0")
    trust = Trust([tmp_path / "key.pub"], at_least="1.0")
    words = ("sign", bundle, "--key", tmp_path / "key", "--release", "1.1")
    before, changes = sorted(path.name for path in tmp_path.iterdir()), commands.done(*words)

    for _ in full(commands, words, 3, changes):
        assert verify(bundle, trust=trust).signature is not None
        assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_sign_on_a_small_file_system_leaves_the_old_signature(bundle, commands, tmp_path):
    make_key(tmp_path / "key")
    sign(bundle, tmp_path / "key", release="1.0")
    trust = Trust([tmp_path / "key.pub"], at_least="1.0")
    taken = sum(-(-path.stat().st_size // PAGE) * PAGE for path in bundle.iterdir())
    for free in range(TIMES):
        with small(tmp_path / "small", taken + (free + 1) * PAGE) as place:
            copy = shutil.copytree(bundle, place / "net")
            told(commands("sign", copy, "--key", tmp_path / "key", "--release", "1.1"))
            assert verify(copy, trust=trust).signature is not None
            assert [path.name for path in place.iterdir()] == ["net"]


def test_no_half_key_is_left(commands, tmp_path):
    changes = commands.done("sign", "--new-key", tmp_path / "first")

    for at in range(1, changes + 1):
        found = commands("sign", "--new-key", tmp_path / "second", at=at, full=True)
        told(found)
        assert found["code"] == 4
        assert not list(tmp_path.glob("second*"))


@pytest.mark.parametrize("form", FORMS)
def test_a_package_is_whole_or_absent(bundle, commands, tmp_path, form):
    out = tmp_path / "out"
    words = ("package", bundle, "--for", form, "-o", out)
    changes = commands.done(*words)
    shutil.rmtree(out)

    for _ in full(commands, words, 4, changes):
        assert set(whole(out, form)) <= {"passed"}
        assert hidden(tmp_path) == []
        shutil.rmtree(out, ignore_errors=True)
    commands.done(*words)


def test_eval_leaves_the_evidence_of_before(bundle, images, commands, tmp_path):
    receipt, junit = tmp_path / "receipt.json", tmp_path / "junit.xml"
    words = ("eval", bundle, "--data", images, "--receipt", receipt, "--junit", junit)
    changes = commands.done(*words)

    for _ in full(commands, words, 5, changes):
        assert len(receipts.read(receipt)) == 1
        ElementTree.parse(junit)
        assert hidden(tmp_path) == []


def test_eval_on_a_small_file_system_leaves_whole_evidence_or_none(bundle, images, commands, tmp_path):
    for number in range(TIMES):
        with small(tmp_path / "small", (number + 1) * PAGE) as place:
            receipt, junit = place / "receipt.json", place / "junit.xml"
            told(commands("eval", bundle, "--data", images, "--receipt", receipt, "--junit", junit))
            assert not receipt.exists() or len(receipts.read(receipt)) == 1
            assert not junit.exists() or ElementTree.parse(junit)
            assert hidden(place) == []


def test_report_leaves_the_page_of_before(bundle, commands, tmp_path):
    page = tmp_path / "report.html"
    words = ("report", bundle, "-o", page, "--force")
    changes = commands.done(*words)

    for _ in full(commands, words, 6, changes):
        read_page(page)
        assert hidden(tmp_path) == []


def test_report_on_a_small_file_system_leaves_a_whole_page_or_none(bundle, commands, tmp_path):
    page = tmp_path / "report.html"
    commands.done("report", bundle, "-o", page)
    draw, codes, need = random.Random(7), set(), page.stat().st_size
    for _ in range(TIMES):
        with small(tmp_path / "small", int(draw.uniform(0.05, 1.2) * need) + PAGE) as place:
            found = commands("report", bundle, "-o", place / "page.html")
            told(found)
            codes.add(found["code"])
            assert [path.name for path in place.iterdir()] == ["page.html"] * (found["code"] == 0)
    assert 4 in codes

"""Signatures, packages and keys under damage: an answer or one sentence, whole files, and a rerun that succeeds."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import ghostdeploy as gd
from ghostdeploy.bundle import signature as sg
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.distribute.forms import FORMS, Wanted, package
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.supply.sign import make_key, sign
from tests.fuzzing import mutations

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
DAMAGED = 4000 if MANY else 200
KILLS = 50 if MANY else 4
FULL = 20 if MANY else 4


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("openvino"), tmp_path / "net")


@pytest.fixture
def key(tmp_path):
    make_key(tmp_path / "key")
    return tmp_path / "key"


def test_no_damaged_signature_is_taken(bundle, key):
    sign(bundle, key, release="1.0")
    path, trust = bundle / sg.SIGNATURES, sg.Trust([key.with_name("key.pub")])
    from ghostdeploy.bundle.folder import open_bundle

    opened, whole = open_bundle(bundle), json.loads(path.read_text("utf-8"))
    for data in mutations(path.read_bytes(), DAMAGED, 1):
        path.write_bytes(data)
        try:
            trust.require(opened)
        except GhostDeployError:
            continue
        assert json.loads(data)["signatures"][0]["statement"] == whole["signatures"][0]["statement"]


def test_no_damaged_key_raises_but_one_sentence(bundle, key):
    for path, use in (
        (key, lambda: sign(bundle, key)),
        (key.with_name("key.pub"), lambda: sg.public_key(key.with_name("key.pub"))),
    ):
        for data in mutations(path.read_bytes(), DAMAGED // 4, 2):
            path.write_bytes(data)
            with suppress(GhostDeployError):  # anything else is a traceback
                use()


@pytest.mark.parametrize("form", ["ovms", "oci"])
def test_damaged_indexes_are_refused_and_left(bundle, tmp_path, form):
    out = tmp_path / "out"
    package(bundle, form, Wanted(out=out))
    path = out / {"ovms": "config.json", "oci": "index.json"}[form]
    for data in mutations(path.read_bytes(), DAMAGED, 3):
        path.write_bytes(data)
        try:
            package(bundle, form, Wanted(out=out, name="other"))
        except GhostDeployError:
            assert path.read_bytes() == data
        else:
            json.loads(path.read_bytes())


def start(*words):
    command = [sys.executable, "-m", "ghostdeploy", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def assert_whole(out, form):
    """What is there of a form is whole."""
    if form in {"triton", "ovms"}:
        for version in out.glob("*/[0-9]*"):
            assert verify(version).verdict == "passed"
    elif form == "huggingface":
        for made in [path for path in out.glob("*") if not path.name.startswith(".")]:
            assert verify(made).verdict == "passed"
            assert (made / "README.md").is_file()
    elif (out / "index.json").exists():
        for one in json.loads((out / "index.json").read_bytes())["manifests"]:
            assert (out / "blobs" / "sha256" / one["digest"].removeprefix("sha256:")).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_killed_package_leaves_whole_things_and_the_next_succeeds(bundle, tmp_path, form):
    begin = time.monotonic()
    assert start("package", bundle, "--for", form, "-o", tmp_path / "measured").wait() == 0
    span, draw = time.monotonic() - begin, random.Random(4)
    out = tmp_path / "out"
    for _ in range(KILLS):
        shutil.rmtree(out, ignore_errors=True)
        running = start("package", bundle, "--for", form, "-o", out)
        time.sleep(draw.uniform(0.4, 1) * span)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert_whole(out, form)
        made = package(bundle, form, Wanted(out=out)) if not (out / "net" / "README.md").exists() else None
        assert_whole(out, form)
        assert made is None or made.name == "net"
        left = [path.name for path in out.rglob(".*") if path.name not in {".gitattributes"} and path.is_dir()]
        assert left == []


@pytest.mark.slow
def test_a_killed_sign_leaves_the_old_signature_or_the_new_one(bundle, key):
    sign(bundle, key, release="1.0")
    begin = time.monotonic()
    assert start("sign", bundle, "--key", key, "--release", "1.1").wait() == 0
    span, draw, trust = time.monotonic() - begin, random.Random(5), sg.Trust([key.with_name("key.pub")])
    for number in range(KILLS):
        running = start("sign", bundle, "--key", key, "--release", f"2.{number}")
        time.sleep(draw.uniform(0.4, 1) * span)
        running.send_signal(signal.SIGKILL)
        running.wait()
        verify(bundle, trust=trust)
    sign(bundle, key, release="3.0")
    assert verify(bundle, trust=gd.Trust([key.with_name("key.pub")], at_least="3.0")).signature is not None


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_is_told_and_leaves_whole_things(bundle, tmp_path, form):
    place = tmp_path / "small"
    place.mkdir()
    size = sum(path.stat().st_size for path in bundle.iterdir())
    draw = random.Random(6)
    for _ in range(FULL):
        kib = max(16, int(draw.uniform(0.2, 1) * size) >> 10)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", place]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            with pytest.raises(gd.errors.OutputError, match="cannot be written"):
                package(bundle, form, Wanted(out=place / "out"))
            assert_whole(place / "out", form)
        finally:
            subprocess.run(["umount", place], check=True)

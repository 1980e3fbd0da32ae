"""The same export in another process, with another hash seed and without the cache, gives the same payloads."""

import os
import subprocess
import sys

import pytest

from ghostdeploy import targets
from tests.conftest import absence
from tests.exported import sample_bundle

HERE = [row.name for row in targets.TARGETS.values() if row.device is None and not absence(row.name)]
NAME = "ghostnet_050"


def export(out, *options):
    environment = os.environ | {"PYTHONHASHSEED": "7", "GHOSTDEPLOY_CACHE": ""}
    command = [sys.executable, "-m", "ghostdeploy", "export", f"sample:{NAME}", *options, "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def assert_same(one, two):
    """The payload files of two bundles are equal, byte for byte."""
    for file in targets.find(one.name.split("-")[1]).files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), f"{one.name}: {file}"


@pytest.mark.slow
def test_float_payloads_are_reproducible(tmp_path, tmp_path_factory):
    export(tmp_path, *(word for name in HERE for word in ("-t", name)))
    assert HERE
    for name in HERE:
        before = sample_bundle(tmp_path_factory, NAME, name, precision="fp32")
        assert_same(before, tmp_path / before.name)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8", "hybrid"])
def test_payloads_of_other_precisions_are_reproducible(tmp_path, precision):
    names = [name for name in HERE if precision in targets.find(name).precisions]
    for folder in ("one", "two"):
        export(tmp_path / folder, *(word for name in names for word in ("-t", name)), f"--{precision}")
    for name in names:
        assert_same(*(tmp_path / folder / f"{NAME}-{name}-{precision}" for folder in ("one", "two")))

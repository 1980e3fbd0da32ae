"""The same export in two processes, with other hash seeds, threads' luck and no cache, gives the same payloads."""

import json
import os
import subprocess
import sys

import pytest

from ghostdeploy import targets
from tests.conftest import absence

HERE = [row.name for row in targets.TARGETS.values() if row.device is None and not absence(row.name)]
IMAGES = 24
VARIES = {"created", "digest"}


def export(out, seed, precision, options):
    """Returns the bundles of every target by name."""
    words = [word for name in HERE if precision in targets.find(name).precisions for word in ("-t", name)]
    environment = os.environ | {"PYTHONHASHSEED": str(seed), "GHOSTDEPLOY_CACHE": ""}
    command = [sys.executable, "-m", "ghostdeploy", "export", "sample:ghost_pfld", *words, *options, "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return {path.name: path for path in sorted(out.iterdir()) if path.is_dir()}


def document(bundle):
    """Returns the manifest without what says when it was made."""
    found = json.loads((bundle / "manifest.json").read_text("utf-8"))
    return {key: value for key, value in found.items() if key not in VARIES}


@pytest.mark.parametrize(
    "precision",
    [pytest.param("fp32", marks=pytest.mark.slow), pytest.param("int8", marks=[pytest.mark.slow, pytest.mark.full])],
)
def test_an_export_is_reproducible(tmp_path, precision):
    options = [] if precision == "fp32" else ["--int8"]
    one, two = (export(tmp_path / name, seed, precision, options) for name, seed in (("one", 1), ("two", 2)))
    assert one.keys() == two.keys()
    assert len(one) >= len([name for name in HERE if precision in targets.find(name).precisions]) > 0
    for name, bundle in one.items():
        files = [record["path"] for record in document(bundle)["files"]]
        differ = [file for file in files if (bundle / file).read_bytes() != (two[name] / file).read_bytes()]
        assert differ == [], name
        assert document(bundle) == document(two[name]), name

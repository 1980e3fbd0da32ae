"""A board that only has tflite-runtime 2.14: it verifies every payload, with NumPy 1 and without LiteRT."""

from __future__ import annotations

import sys

import pytest

from tests.device import attempt, make, output
from tests.exported import sample_bundle
from tests.further import further
from tests.shared import shared_folder

PACKAGES = ("tflite-runtime==2.14.0", "numpy<2", "pillow", "msgspec", "click", "rich")
PROGRAM = """
import importlib.util, sys
import ghostdeploy as gd

assert not [name for name in ("torch", "onnx", "ai_edge_litert") if importlib.util.find_spec(name)]
with gd.load(sys.argv[1], threads=2, profile="throughput") as model:
    print(model.info()["engine"], model.info()["engine_version"])
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime 2.14 has wheels up to Python 3.11"),
    pytest.mark.skipif(sys.platform != "linux", reason="tflite-runtime 2.14 has wheels for Linux"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of the board."""
    with shared_folder(tmp_path_factory, "old-tflite") as folder:
        done = folder / "done"
        if not done.exists():
            make(folder, *PACKAGES)
            done.touch()
    return folder / "venv" / "bin" / "python"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "hybrid", "int8"])
@pytest.mark.parametrize("name", further(["ghostnet_050", "g_ghost_regnetx_002"], usual=["ghostnet_050"]))
def test_every_bundle_is_verified(python, name, precision, tmp_path_factory):
    path = sample_bundle(tmp_path_factory, name, "tflite", precision=precision)

    done = attempt(python, "-m", "ghostdeploy", "verify", path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_the_engine_is_the_old_one(python, tiny_bundle):
    assert output(python, "-c", PROGRAM, tiny_bundle("tflite", "int8")).split() == ["tflite_runtime", "2.14.0"]


def test_batches_pixels_and_two_inputs_are_verified(python, tiny_bundle):
    options = ({"batch": 3}, {"layout": "nhwc", "dtype": "uint8"}, {"side": True})
    paths = [tiny_bundle("tflite", precision, **one) for precision in ("fp32", "int8") for one in options]

    assert output(python, "-m", "ghostdeploy", "verify", *paths).count("passed") >= len(paths)

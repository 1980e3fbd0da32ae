"""A device: a fresh environment with one engine and four small libraries runs a bundle, without torch and onnx."""

from __future__ import annotations

import pytest

from ghostdeploy import samples
from tests.device import ROOT, attempt, make, output
from tests.exported import sample_bundle
from tests.shared import shared_folder

PACKAGES = ("numpy", "pillow", "msgspec", "click", "rich", "openvino")
PROGRAM = """
import importlib.util, sys
import numpy as np
import ghostdeploy as gd

assert not [name for name in ("torch", "onnx", "onnxruntime", "safetensors") if importlib.util.find_spec(name)]
assert "site-packages" in gd.__file__, gd.__file__
with gd.load(sys.argv[1], threads=1) as model:
    print(*model(np.zeros((3, 3, 64, 64), np.float32)).shape)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment, as a user of a device would make it."""
    with shared_folder(tmp_path_factory, "device") as folder:
        done, python = folder / "done", folder / "venv" / "bin" / "python"
        if not done.exists():
            make(folder, "--constraint", ROOT / "constraints.txt", *PACKAGES)
            done.touch()
    return python


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return sample_bundle(tmp_path_factory, "ghostnet_050", "openvino", precision="fp32")


def test_a_bundle_runs_without_torch_and_onnx(python, bundle):
    assert output(python, "-c", PROGRAM, bundle).strip() == "3 10"


def test_verify_and_inspect_work(python, bundle):
    assert "passed" in output(python, "-m", "ghostdeploy", "verify", bundle)
    assert "openvino" in output(python, "-m", "ghostdeploy", "inspect", bundle)


def test_an_int8_bundle_is_verified_against_its_simulation_and_diagnosed(python, tiny_bundle):
    path = tiny_bundle("openvino", "int8")

    assert "executed on" in output(python, "-m", "ghostdeploy", "verify", path)
    assert "depthwise" in output(python, "-m", "ghostdeploy", "diagnose", path)


def test_a_kit_without_nvidias_library_says_which_extra_brings_it(python, tiny_bundle):
    done = attempt(python, "-m", "ghostdeploy", "build", tiny_bundle("tensorrt", "int8"))

    assert done.returncode == 4, done.stderr
    assert "none of tensorrt, tensorrt_rtx is installed here" in done.stderr
    assert 'pip install "ghostdeploy[tensorrt]"' in done.stderr


def test_the_example_app_classifies_an_image(python, bundle):
    boot = next(image for image in samples.example_images() if image.stem == "ankle_boot")

    lines = output(python, "-m", "ghostdeploy.samples.classify_image", bundle, boot).splitlines()

    assert len(lines) == 3
    assert "ankle boot" in lines[0]


def test_what_needs_torch_says_which_extra_brings_it(python):
    done = attempt(python, "-m", "ghostdeploy", "export", "-t", "openvino")

    assert done.returncode == 4, done.stderr
    assert "torch" in done.stderr
    assert 'pip install "ghostdeploy[openvino]"' in done.stderr

"""What stays unloaded: torch on a device, engines until a bundle needs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ghostdeploy import targets
from tests.bundles import for_target

HEAVY = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "openvino",
    "safetensors",
    "timm",
    "tensorrt",
    "tensorrt_rtx",
    "litert_torch",
    "jax",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "tflite_runtime",
    "ncnn",
    "pnnx",
    "executorch",
    "torchao",
    "matplotlib",
    "jinja2",
)


def loaded(code, *arguments):
    """Returns which heavy packages are loaded after `code`, in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "code",
    [
        "import ghostdeploy",
        "import ghostdeploy as gd; gd.load, gd.Runtime, gd.Bundle, gd.Preprocess, gd.verify, gd.evaluate",
        "import ghostdeploy.bundle.folder, ghostdeploy.bundle.staging, ghostdeploy.targets, ghostdeploy.preprocess",
        "import ghostdeploy.runtimes, ghostdeploy.runtimes.base",
        "import ghostdeploy.samples, ghostdeploy.samples.classify_image",
        "import ghostdeploy.cli",
        "import ghostdeploy.deploy.prove.commands, ghostdeploy.deploy.prove.diagnose, ghostdeploy.deploy.export.build",
    ],
    ids=["the package", "public names of a device", "the floor", "runtimes", "samples", "the command line", "proofs"],
)
def test_importing_loads_nothing_heavy(code):
    assert loaded(code) == []


QUANTIZERS = sorted({row.quantizer for row in targets.ROWS if row.recipe is not None})


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_quantizer_needs_neither_torch_nor_a_converter(quantizer):
    code = "import sys; from ghostdeploy.targets import resolve; resolve(sys.argv[1], requirement='')"

    assert not {"torch", "jax", "litert_torch"} & set(loaded(code, quantizer))


EXECUTED = [row for row in targets.TARGETS.values() if row.device is None]
"""Targets whose engine runs on every machine."""


@pytest.mark.parametrize(("target", "precision"), [(row.name, p) for row in EXECUTED for p in row.precisions])
def test_running_a_bundle_loads_its_engine_and_nothing_else(tiny_bundle, target, precision):
    shape = (2, *for_target(target).inputs[0].shape[1:])
    code = (
        "import sys, numpy as np, ghostdeploy as gd\n"
        "with gd.load(sys.argv[1]) as model:\n"
        f"    model(np.zeros({shape}, np.float32))\n"
        "    model.classify(np.zeros((20, 30, 3), np.uint8))\n"
        "assert gd.verify(sys.argv[1]).verdict == 'passed'\n"
    )

    engines = [choice.partition("|")[0] for choice in targets.find(target).runtime_packages]
    assert loaded(code, tiny_bundle(target, precision)) == engines


@pytest.mark.parametrize("target", [row.name for row in EXECUTED if row.runtime_packages])
def test_a_missing_engine_is_named_with_the_pip_command(tiny_bundle, target):
    packages = targets.find(target).runtime_packages[0].split("|")
    code = (
        f"import sys\nsys.modules |= dict.fromkeys({packages})\nimport ghostdeploy as gd\n"
        "try:\n    gd.load(sys.argv[1])\n"
        "except gd.GhostDeployError as error:\n    print(type(error).__name__, error, '|', error.hint)\n"
    )

    done = subprocess.run([sys.executable, "-c", code, tiny_bundle(target)], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("MissingDependency")
    assert packages[-1] in done.stdout
    assert f'pip install "ghostdeploy[{target}-runtime]"' in done.stdout

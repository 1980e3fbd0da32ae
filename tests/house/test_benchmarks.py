"""The benchmarks run, on tiny bundles, small sets and few calls; only equality and memory are asserted."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from ghostdeploy import targets
from tests.conftest import require, require_package

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(params=[row.name for row in targets.TARGETS.values() if row.device is None])
def path(request, tiny_bundle):
    require(request.param, execution=True)
    return tiny_bundle(request.param)


def report(name, *arguments):
    command = [sys.executable, BENCHMARKS / name, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_eight_threads_give_the_serial_bits_and_five_thousand_calls_leave_the_memory_alone(path):
    found = report("endurance.py", path, "--calls", 100, "--long", 5000)

    assert found["answers"] == 800
    assert found["different"] == 0
    assert max(found["grown_mb"], found["submit_grown_mb"]) < 5


def test_the_first_result_is_measured_by_stage_beside_the_engine_alone(path):
    found = report("first_result.py", path, "--repeat", 1, "--cache")

    ours, raw = found.values()
    assert ours["cache"] in {"hit", "none"}
    assert all(seconds > 0 for row in (ours, raw) for seconds in (row["import"], row["load"], row["first"]))


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.full)])
def test_every_layer_of_a_native_bundle_is_measured(precision, tiny_bundle):
    require("native")
    bundle = tiny_bundle("native", precision)
    command = [sys.executable, BENCHMARKS / "native_layers.py", bundle, "--runs", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    layers, kinds = (part.splitlines()[2:] for part in done.stdout.split("\n\n")[1:])

    steps = json.loads((bundle / "plan.json").read_bytes())["steps"]
    assert [line.split("|")[1].strip(" `") for line in layers] == [one["name"] for one in steps if one["bits"]]
    assert sum(int(line.split("|")[2]) for line in kinds) == len(steps)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_from_the_package_is_there(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    wanted = [
        (node.module, name.name)
        for node in nodes
        if (node.module or "").startswith("ghostdeploy")
        for name in node.names
    ]

    missing = [
        f"{module}.{name}"
        for module, name in wanted
        if not hasattr(import_module(module), name) and find_spec(f"{module}.{name}") is None
    ]

    assert not missing


def test_the_wrapper_is_measured_against_the_engines_own_call(path):
    (found,) = report("wrapper_overhead.py", path, "--calls", 20)

    assert found["raw_us"] > 0
    assert found["wrapped_us"] > 0


@pytest.mark.slow
def test_workers_on_ray_give_the_figures_of_one_process(tiny_bundle):
    require_package("ray")

    assert report("ray_eval.py", tiny_bundle("onnx"), "--count", 64, "--side", 96)["equal"]


def test_average_precision_is_measured_beside_pycocotools():
    pytest.importorskip("pycocotools.cocoeval")

    found = report("coco_figures.py", "--images", 60, "--classes", 5)

    assert found["equal"]
    assert found["ghostdeploy"]["seconds"] > 0
    assert found["pycocotools"]["map"] == pytest.approx(found["ghostdeploy"]["map"], abs=1e-6)

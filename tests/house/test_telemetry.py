"""No word to anybody, by engine and command: with an empty home, no file in it and no internet socket."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import ghostdeploy
from ghostdeploy.telemetry import REPORTERS, VARIABLES, silent
from tests import offline
from tests.conftest import require

ROOT = Path(__file__).parents[2]
ENGINES = {
    "executorch": "executorch",
    "ncnn": "ncnn",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "tflite": "ai_edge_litert",
}
"""Of each target that runs on a processor, the package of its engine."""
SPEAKS_FROM = (1, 29)
"""The release of ONNX Runtime that began to report outside Windows."""
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT")
"""All that a watched process sees of this one's environment: ONNX Runtime is silent by itself where a variable such as
`CI` or `BUILDKITE` tells it of a build server, and a test there would prove nothing."""

watched = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in offline.MACHINES, reason="the filter is Linux's"
)

LOAD = """
import os, sys
import numpy as np
import ghostdeploy as gd

before = dict(os.environ)
with gd.load(sys.argv[1], threads=1) as model:
    model(np.zeros((1, *model.info()["inputs"][0]["shape"][1:]), np.float32))
assert dict(os.environ) == before, "the application's environment was changed"
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""
COMMANDS = """
import sys
from ghostdeploy.cli import main

bundle, data, image = sys.argv[1:]
for words in (
    ["verify", bundle],
    ["run", bundle, image],
    ["eval", bundle, "--data", data],
    ["bench", bundle, "--rounds", "8"],
    ["doctor"],
):
    try:
        main(words)
    except SystemExit as leaving:
        assert not leaving.code, words
"""
REPORT = """
import onnxruntime, pathlib, time

until = time.monotonic() + 60  # it writes from a thread of its own
while not list(pathlib.Path.home().rglob("deviceid")) and time.monotonic() < until:
    time.sleep(0.05)
"""
NETWORK = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
"""


def run(home, *words, **variables):
    """Runs Python as on a user's machine, with `home` and no word about telemetry; returns what it left in there."""
    home.mkdir()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    program = [sys.executable, "-m", "tests.offline", sys.executable, *map(str, words)]
    environment = {**kept, "HOME": str(home), **variables}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done, sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two labelled images for the tiny bundles, and one of them as a file."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    np.savez(folder / "set.npz", images=images, labels=np.arange(64) % 10)
    Image.fromarray(images[0]).save(folder / "one.png")
    return folder / "set.npz", folder / "one.png"


@watched
@pytest.mark.parametrize("target", ENGINES)
def test_an_app_that_loads_a_bundle_reports_to_nobody(target, tiny_bundle, tmp_path):
    _, left = run(tmp_path / "home", "-c", LOAD, tiny_bundle(target))

    assert left == []


@watched
@pytest.mark.parametrize("target", ENGINES)
def test_commands_and_their_children_report_to_nobody(target, tiny_bundle, data, tmp_path):
    _, left = run(tmp_path / "home", "-c", COMMANDS, tiny_bundle(target), *data)

    assert left == []


@watched
@pytest.mark.slow
def test_an_export_to_every_target_reports_to_nobody_and_leaves_nothing_in_tmpdir(data, tmp_path):
    for target in ENGINES:
        require(target)
    (tmp_path / "net.py").write_text(NETWORK)
    words = ["export", f"{tmp_path}/net.py:network", "--image-size", "32", "--int8", "--calib", data[0]]
    targets = [word for target in (*ENGINES, "tensorrt") for word in ("-t", target)]
    cache = tmp_path / "cache"  # of its own: every converter starts
    (tmp_path / "tmp").mkdir()

    own = {"GHOSTDEPLOY_CACHE": str(cache), "TMPDIR": str(tmp_path / "tmp")}
    program = "import sys; from ghostdeploy.cli import main; main(sys.argv[1:])"
    _, left = run(tmp_path / "home", "-c", program, *words, *targets, "-o", tmp_path, **own)

    assert left == []
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == []


@watched
def test_the_watch_sees_what_an_engine_does_by_itself_also_on_a_build_server(tmp_path, monkeypatch):
    """So that the tests above could fail."""
    monkeypatch.setenv("CI", "true")
    require("onnx")
    if tuple(map(int, version("onnxruntime").split(".")[:2])) < SPEAKS_FROM:
        pytest.skip("this ONNX Runtime does not report on Linux")

    _, left = run(tmp_path / "home", "-c", REPORT)

    assert any(name.endswith("deviceid") for name in left)


@watched
@pytest.mark.parametrize(("family", "dies"), [("AF_INET", True), ("AF_INET6", True), ("AF_UNIX", False)])
def test_the_watch_kills_for_internet_sockets_also_in_children(family, dies):
    child = f"import socket; socket.socket(socket.{family})"
    program = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode < 0)"

    done = subprocess.run([sys.executable, "-m", "tests.offline", sys.executable, "-c", program], cwd=ROOT, check=False)

    assert done.returncode == dies


@watched
def test_without_a_home_nothing_is_said_about_telemetry(tiny_bundle):
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    words = [sys.executable, "-m", "ghostdeploy", "verify", tiny_bundle("onnx"), "--json"]

    done = subprocess.run(words, env={**kept, "HOME": "/dev/null/x"}, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)[0]["verdict"] == "passed"
    assert done.stderr == ""


def test_every_import_of_an_engine_is_silent():
    loud, found = [], 0
    for path in Path(ghostdeploy.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        quiet = {id(node) for block in ast.walk(tree) if _is_silent(block) for node in ast.walk(block)}
        for node in ast.walk(tree):
            if _imports_an_engine(node):
                found += 1
                loud += [] if id(node) in quiet else [f"{path.name}:{node.lineno}"]

    assert not loud
    assert found > 10


_PACKAGES = {*ENGINES.values(), "ai_edge_quantizer", "litert_torch", "tflite_runtime", "tensorrt", "tensorrt_rtx"}


def _imports_an_engine(node):
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(name.partition(".")[0] in _PACKAGES for name in names)


def _is_silent(node):
    return isinstance(node, ast.With) and any(ast.unparse(item.context_expr) == "silent()" for item in node.items)


def test_openvino_gets_its_stub_instead_of_a_reporter():
    require("openvino")
    program = """
import sys, ghostdeploy.runtimes.openvino.runtime, openvino.tools.ovc
print(type(openvino.tools.ovc.telemetry).__module__, any(n.startswith("openvino_telemetry") for n in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]


def test_the_process_is_changed_inside_the_block_and_nowhere_else(monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    for name in REPORTERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = dict(os.environ)
    with silent(), silent():
        assert VARIABLES.items() <= os.environ.items()
        with pytest.raises(ModuleNotFoundError):
            import openvino_telemetry  # noqa: F401

    assert dict(os.environ) == before
    assert not sys.modules.keys() & set(REPORTERS)


def test_a_reporter_that_was_imported_before_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_telemetry", json)
    with silent():
        import openvino_telemetry

        assert openvino_telemetry is json
    assert sys.modules["openvino_telemetry"] is json

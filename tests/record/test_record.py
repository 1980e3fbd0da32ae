"""The record of behaviour: what bundles and commands said when it was made is what they say now.

It was made before the rooms were rebuilt. A change that is meant is recorded anew, and its commit says why:

    python -m pytest tests/record -m "" --record
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostdeploy import targets
from tests.commands import run
from tests.conftest import require
from tests.exported import int8_bundle, sample_bundle
from tests.record.reading import graph_of, kept, manifest_of, shape

HERE = Path(__file__).parent
MODELS = ("ghostnet_050", "g_ghost_regnetx_002")
PAIRS = [(m, r.name, p) for m in MODELS for r in targets.TARGETS.values() for p in r.precisions]
USUAL = frozenset({("ghostnet_050", "onnx"), ("ghostnet_050", "openvino"), ("ghostnet_050", "tflite")})
REFUSED = [
    "export no_such_model -t onnx",
    "export -t onx",
    "export -t tensorrt --hybrid",
    "export -t onnx --int8 --fp16",
    "export -t onnx --batch 0",
    "export -t onnx --weights missing.pth",
    "export -t onnx --weights text.pth",
    "export -t onnx --data missing",
    "export -t onnx --data empty",
    "export -t onnx --calib image.png --int8",
    "export -t onnx --labels missing.txt",
    "export -t onnx --max-drop 2",
    "export -t onnx --skip-pass Nothing",
    "export -t openvino --sm 86",
    "export -t tensorrt --sm 1",
    "export -t onnx --int8-io",
    "export -t onnx --mean 1,2",
    "export -t onnx --image-size 0",
    "export -t onnx --interpolation cubic",
    "export text.onnx -t onnx",
    "export text.onnx -t tflite",
    "export missing.py:net -t onnx",
    "export -t onnx --unknown",
    "verify missing",
    "verify empty",
    "verify no_manifest",
    "verify damaged",
    "run missing image.png",
    "run bundle missing.png",
    "run bundle text.png",
    "run bundle image.png -k 0",
    "run bundle",
    "eval bundle --data missing",
    "eval bundle --data empty",
    "eval bundle --data image.png",
    "eval bundle --data images --max-drop 0.1",
    "eval bundle --data set.npz --shard 1/2",
    "eval bundle --data set.npz --workers dask",
    "eval bundle --data set.npz --workers ray:4",
    "eval bundle other --data set.npz --record all.jsonl",
    "eval --merge missing.jsonl",
    "eval --merge image.png",
    "bench missing",
    "bench bundle --rounds 0",
    "bench bundle --threads 0",
    "inspect missing",
    "inspect damaged",
    "diagnose bundle --recorded",
    "diagnose bundle other --recorded",
    "diagnose missing",
    "diagnose bundle --on adb://1",
    "diagnose bundle --on nowhere",
    "diagnose bundle --on ssh://h --recorded",
    "diagnose bundle --on ssh://h --model ghostnet_050",
    "build bundle",
    "models *nothing*",
    "tune -t onnx --precision fp17",
    "verify http://127.0.0.1:1/v2/models/net",
    "verify http://127.0.0.1:1/v2/models/net --bundle bundle",
    "verify http://127.0.0.1:1/nothing --bundle bundle",
    "verify http://127.0.0.1:1/v2/models/net bundle --bundle bundle",
    "verify bundle --bundle bundle",
    "serve missing",
    "serve bundle --http-port 80 --grpc-port 80",
    "nothing",
]
ANSWERED = [
    "inspect bundle",
    "verify bundle",
    "run bundle image.png",
    "eval bundle --data set.npz",
    "eval bundle --data set.npz --reference other",
    "bench bundle --rounds 8",
    "diagnose integers",
    "diagnose bundle other",
    "inspect integers",
    "verify integers",
    "models ghostnet_0*",
    "doctor",
    "export -t onnx --dry-run",
    "export -t onnx -t openvino --int8 --dry-run",
]
_PROGRAM = re.compile(r"hint: .*(?= \w+ --help)")
"""The command is named by whatever program runs it, such as pytest."""


@pytest.fixture
def recorded(request):
    """A function (file, key, found) that compares with the record, or writes it."""

    def compare(name, key, found):
        path = HERE / f"{name}.json"
        record = json.loads(path.read_text()) if path.exists() else {}
        if request.config.getoption("--record"):
            record[key] = found
            path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        assert found == record[key]

    return compare


@pytest.fixture
def folder(tiny_bundle, tmp_path, monkeypatch):
    """The working folder of a user: bundles, images, and what is wrong with them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bundle("onnx"), "bundle")
    shutil.copytree(tiny_bundle("openvino"), "other")
    shutil.copytree(tiny_bundle("openvino", "int8"), "integers")
    for name in ("empty", "no_manifest", "images"):
        Path(name).mkdir()
    shutil.copytree("bundle", "damaged")
    Path("damaged/model.onnx").write_bytes(b"damaged")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 20, 20, 3), np.uint8)
    np.savez("set.npz", images=pixels, labels=np.arange(30) % 3)
    Image.fromarray(pixels[0]).save("image.png")
    for name in ("text.pth", "text.onnx", "text.png", "no_manifest/model.onnx"):
        Path(name).write_text("hello")
    return tmp_path


@pytest.mark.parametrize("words", REFUSED)
def test_refusals_say_what_they_said(words, folder, capsys, recorded):
    answer = run(capsys, *words.split())

    said = [line for line in answer.err.splitlines() if line.startswith(("error: ", "hint: "))]
    said = [_PROGRAM.sub("hint: ghostdeploy", line).replace(str(folder), "HERE") for line in said]
    recorded("refusals", words, {"code": answer.code, "said": kept(said)})


@pytest.mark.parametrize("words", ANSWERED)
def test_documents_have_the_fields_they_had(words, folder, capsys, recorded):
    answer = run(capsys, *words.split(), "--json")

    found = shape(answer.document)
    recorded("documents", words, {"code": answer.code, "document": sorted(found) if words == "doctor" else found})


def _marks(name, target, precision):
    usual = (name, target) in USUAL or (name, target, precision) == ("g_ghost_regnetx_002", "tensorrt", "int8")
    return [pytest.mark.slow, *([] if usual else [pytest.mark.full])]


@pytest.mark.parametrize("pair", [pytest.param(one, marks=_marks(*one), id="-".join(one)) for one in PAIRS])
def test_bundles_are_what_they_were(pair, tmp_path_factory, recorded):
    name, target, precision = pair
    require(target)
    made = int8_bundle(tmp_path_factory, name, target) if precision == "int8" else None
    bundle = made or sample_bundle(tmp_path_factory, name, target, precision=precision)

    found = {"manifest": manifest_of(bundle)}
    if precision != "int8":
        found["graph"] = graph_of(bundle / targets.find(target).payload)
    recorded("bundles", "-".join(pair), found)

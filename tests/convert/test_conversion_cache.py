"""The cache of conversions: the same files as a fresh export, a key over all that matters, and never in the way."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import PrecisionAchieved
from ghostdeploy.cached import PIECE
from ghostdeploy.convert.base import ExportResult, Written
from ghostdeploy.convert.cache import Cache, pack, unpack
from ghostdeploy.deploy.export.conversions import FROM_CACHE
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.models.source import from_module

DONE = ExportResult(
    status="done",
    tools={"onnx": "1"},
    written=Written(precision=PrecisionAchieved(how="read", int8_layers=1, float_layers=2)),
)


def network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def save(path, module=None, size=16):
    torch.export.save(torch.export.export(module or network(), (torch.zeros(1, 3, size, size),)), path)


def export(out, *rows, precision="fp32"):
    """Exports the network; returns its bundles and the stages."""
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3)).astype(np.uint8)
    config = ExportConfig(
        targets=rows,
        precision=precision,
        out=out,
        preprocess={"size": 16, "crop_fraction": 1.0},
        calibration=images if precision == "int8" else None,
    )
    exported = run_export(lambda: PyTorchModel(from_module(network())), config)
    return exported.bundles, exported.seconds


def files(bundle):
    """Everything but what says when the bundle was made."""
    found = {str(p.relative_to(bundle.path)): p.read_bytes() for p in bundle.path.rglob("*") if p.is_file()}
    del found["manifest.json"]
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of a cache of its own."""
    folder = tmp_path / "kept"
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", str(folder))
    return folder


@pytest.mark.slow
def test_an_export_from_the_cache_is_the_same_bytes_and_says_so(tmp_path, cache):
    rows = [
        row.name for row in targets.TARGETS.values() if "int8" in row.precisions and not targets.missing_for_export(row)
    ]
    fresh, stages = export(tmp_path / "a", *rows, precision="int8")
    again, cached = export(tmp_path / "b", *rows, precision="int8")

    assert not [name for name in stages if FROM_CACHE in name]
    converted = [name for name in stages if name.startswith(("convert", "quantize"))]
    assert converted
    assert {name + FROM_CACHE for name in converted} <= cached.keys()
    assert not cached.keys() & set(converted)
    for one, other in zip(fresh, again, strict=True):
        assert files(one) == files(other)
        assert one.manifest.tools == other.manifest.tools
        assert one.manifest.precision_achieved == other.manifest.precision_achieved
        assert one.manifest.verdict == other.manifest.verdict


@pytest.mark.slow
def test_damaged_entries_are_no_entries_and_another_precision_shares_what_it_can(tmp_path, cache):
    [fresh], _ = export(tmp_path / "a", "openvino")
    for path in cache.glob("*.result"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    [again], stages = export(tmp_path / "b", "openvino")
    _, shared = export(tmp_path / "c", "openvino", precision="fp16")

    assert not [name for name in stages if FROM_CACHE in name]
    assert files(fresh) == files(again)
    assert f"convert to onnx{FROM_CACHE}" not in shared  # the step before fp16 is asked for in fp16
    assert "convert to openvino" in shared


@pytest.mark.slow
def test_switched_off_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    export(tmp_path / "a", "onnx")
    _, stages = export(tmp_path / "b", "onnx")

    assert "convert to onnx" in stages
    assert not list(tmp_path.rglob("*.result"))


@pytest.mark.slow
def test_two_exports_at_once_share_a_cache_without_harm(tmp_path, cache):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.convert.test_conversion_cache import export\n"
        "export(Path(sys.argv[1]), 'openvino')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    racing = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / name], env=environment, stderr=subprocess.PIPE)
        for name in "ab"
    ]
    for one in racing:
        assert one.wait(300) == 0, one.stderr.read().decode()
        one.stderr.close()
    first, second = (open_bundle(next((tmp_path / name).iterdir())) for name in "ab")

    assert files(first) == files(second)
    assert len(list(cache.iterdir())) == len(list(cache.glob("*.result"))) == 2


def test_many_processes_writing_and_reading_one_entry_never_see_half_of_it(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom ghostdeploy.convert.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]), limit=3_000_000)\n"
        "for turn in range(60):\n"
        "    key = 'abc'[turn % 3]\n"
        "    cache.write(key * 64, [key.encode() * 1_000_000] * 2)\n"
        "    found = cache.get('abc'[(turn + 1) % 3] * 64)\n"
        "    assert found is None or len(set(found)) == 1 and len(found) == 2_000_000, found[:9]\n"
    )
    racing = [subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=subprocess.PIPE) for _ in range(2)]
    for one in racing:
        assert one.wait(120) == 0, one.stderr.read().decode()
        one.stderr.close()

    assert not list(tmp_path.glob(".*"))


def test_an_archive_brings_back_files_and_record(tmp_path):
    (tmp_path / "in" / "kit").mkdir(parents=True)
    (tmp_path / "in" / "model.bin").write_bytes(os.urandom(2 * PIECE + 7))
    (tmp_path / "in" / "kit" / "empty").write_bytes(b"")
    (tmp_path / "out").mkdir()
    cache = Cache(tmp_path / "cache")
    cache.write("a", pack(tmp_path / "in", DONE))

    with cache.find("a") as stream:
        assert unpack(stream, tmp_path / "out") == DONE
    assert (tmp_path / "out" / "model.bin").read_bytes() == (tmp_path / "in" / "model.bin").read_bytes()
    assert (tmp_path / "out" / "kit" / "empty").read_bytes() == b""


@pytest.mark.parametrize("name", [b"../model", b"/tmp/modl", b"a\\\\model"])
def test_an_archive_never_writes_outside_its_folder(name, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a__model").write_bytes(b"data")
    stream = b"".join(pack(tmp_path / "in", DONE))
    assert b"a__model" in stream
    length = int.from_bytes(stream[:8], "big")
    record = stream[8 : 8 + length].replace(b"a__model", name)
    changed = len(record).to_bytes(8, "big") + record + stream[8 + length :]

    with pytest.raises(ValueError, match="is outside the folder"):
        unpack(io.BytesIO(changed), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_stream_that_ends_early_is_refused(tmp_path):
    (tmp_path / "model").write_bytes(b"data")
    stream = b"".join(pack(tmp_path, DONE))
    (tmp_path / "out").mkdir()

    with pytest.raises(ValueError, match="early"):
        unpack(io.BytesIO(stream[:-1]), tmp_path / "out")


def test_a_result_above_the_limit_is_not_kept_and_throws_nothing_out(tmp_path):
    cache = Cache(tmp_path, limit=1000)
    cache.put("small", b"s" * 100)
    cache.write("large", (b"x" * 100 for _ in range(20)))

    assert cache.get("small") == b"s" * 100
    assert cache.get("large") is None
    assert len(list(tmp_path.iterdir())) == 1

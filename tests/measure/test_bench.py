"""`ghostdeploy bench`: several bundles in one run, on real engines."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from ghostdeploy import targets
from ghostdeploy.deploy.measure.bench import bench
from ghostdeploy.errors import BundleError, UnsupportedHardware, UsageError
from ghostdeploy.statistics import median_interval, quantile
from tests.commands import run
from tests.signing import sign_again


@pytest.fixture(scope="module")
def paths(tiny_bundle):
    return [tiny_bundle("onnx", "fp32"), tiny_bundle("openvino", "fp32"), tiny_bundle("tflite", "fp32")]


@pytest.fixture(scope="module")
def found(paths):
    return bench([paths[0], *paths], rounds=8)


def test_every_bundle_is_measured_in_order(found):
    assert [one.target for one in found.bundles] == ["onnx", "onnx", "openvino", "tflite"]
    assert all(one.calls == 8 * (one.calls // 8) > 0 for one in found.bundles)


def test_figures_are_ordered_as_they_must_be(found):
    for one in found.bundles:
        assert 0 < one.median_ms <= one.p95_ms <= one.p99_ms
        assert one.ratio_ci95[0] <= one.ratio <= one.ratio_ci95[1]
        assert one.images_per_second > 0
        assert one.peak_bytes > 10_000_000
        assert one.first_result_ms > one.median_ms


def test_the_memory_is_that_of_the_bundles_process_and_not_of_the_one_that_asks(paths):
    held = np.ones(100_000_000)

    measured = bench([paths[0]], rounds=8).bundles[0].peak_bytes

    assert measured < held.nbytes / 2


def test_a_simulator_has_no_latency(paths, monkeypatch):
    row = replace(targets.find("tflite"), simulator="source", device="device with an NPU")
    monkeypatch.setattr(targets, "find", lambda name: row)

    with pytest.raises(UnsupportedHardware, match="runs on a simulator here") as caught:
        bench(paths[2:], rounds=8)

    assert "measure it on a device with an NPU" in caught.value.hint


def test_the_first_bundle_has_ratio_one(found):
    assert (found.bundles[0].ratio, found.bundles[0].ratio_ci95) == (1.0, (1.0, 1.0))


def test_the_command_prints_a_table_and_json(paths, capsys):
    shown = run(capsys, "bench", *paths[:2], "--rounds", "8")
    document = run(capsys, "bench", paths[0], "--rounds", "8", "--json").document

    assert shown.code == 0
    assert "ratio (95 %)" in shown.out
    assert "8 interleaved rounds" in shown.out
    assert document["bundles"][0]["target"] == "onnx"
    assert document["rounds"] == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rounds", "7"), "7 is not in the range x>=8"),
        (("--threads", "4096"), "threads is 4096, expected 1 to "),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(paths, capsys, words, said):
    answer = run(capsys, "bench", paths[0], *words)

    assert answer.code == 2
    assert said in answer.err


def test_too_few_rounds_are_an_error_of_the_library_too(paths):
    with pytest.raises(UsageError, match="rounds is 7, expected at least 8"):
        bench([paths[0]], rounds=7)


def test_a_damaged_bundle_is_told_before_anything_is_measured(paths, tmp_path, capsys):
    copy = shutil.copytree(paths[0], tmp_path / "copy")
    (copy / "model.onnx").write_bytes(b"no graph")

    answer = run(capsys, "bench", paths[0], copy)

    assert answer.code == 3
    assert "model.onnx" in answer.err


def test_a_payload_that_its_engine_refuses_is_named(paths, tmp_path):
    copy = shutil.copytree(paths[0], tmp_path / "copy")
    (copy / "model.onnx").write_bytes(b"no graph")
    sign_again(copy)

    with pytest.raises(BundleError, match=r"onnxruntime refuses .*copy"):
        bench([copy], rounds=8)


@pytest.mark.parametrize("count", [6, 8, 20, 51])
def test_the_interval_of_the_median_holds_it_as_often_as_it_says(count):
    rng = Random(count)
    held = 0
    for _ in range(4000):
        low, high = median_interval([rng.expovariate(1.0) for _ in range(count)])
        held += low <= math.log(2) <= high

    assert held / 4000 > 0.94


def test_quantiles_lie_between_neighbours():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([0.0, 10.0], 0.25) == 2.5
    assert quantile([4.0], 0.99) == 4.0

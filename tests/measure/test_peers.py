"""`benchmarks/peers.py`: networks equal their papers' sizes, ratios are what they say, and one command does it all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from ghostdeploy import targets
from ghostdeploy.models import create_model
from ghostdeploy.models.count import count_macs, count_params
from tests.conftest import require

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


@pytest.fixture(scope="module", autouse=True)
def _on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


def entry(network, engine, *medians, verdict=None):
    from comparison.run import Entry

    return Entry(
        network=network, engine=engine, version="engine 1", medians=medians * (8 // len(medians)), verdict=verdict
    )


def group(*entries, failed=()):
    from comparison.run import Group

    return Group(machine="here", batch=1, threads=1, entries=entries, failed=dict(failed))


def test_mobilenet_v3_large_has_the_size_that_its_paper_prints():
    import mobilenet_v3

    network = mobilenet_v3.large()

    assert round(count_params(network) / 1e6, 2) == 5.48
    assert count_macs(network) / 219e6 == pytest.approx(1, abs=0.015)
    assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)


def test_regnetx_032_has_the_size_that_its_paper_prints():
    import regnet_x

    network = regnet_x.regnetx_032()

    assert round(count_params(network) / 1e6, 1) == 15.3
    assert round(count_macs(network) / 1e9, 1) == 3.2


@pytest.mark.parametrize("name", ["repghostnet_100", "ghostnetv3_100"])
def test_merging_branches_changes_no_output_and_leaves_the_folded_size(name):
    import merged

    trained, network = create_model(name), getattr(merged, name)()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        torch.testing.assert_close(network(images), trained(images), rtol=1e-4, atol=1e-4)
    kinds = [type(module).__name__ for module in network.modules()]
    assert count_params(network) < count_params(trained)
    assert not {"RepGhostModule", "GhostModuleV3", "ConvBn"} & set(kinds)


def test_engines_come_from_the_target_table():
    from comparison.contest import engines

    found = {one.name for one in engines(["*"])}

    rows = [row for row in targets.TARGETS.values() if row.default_route is not None]
    ours = {f"ours-{row.name}-{precision}" for row in rows for precision in row.precisions if precision != "fp16"}
    defaults = {f"{kind}-{row.name}" for row, kind in product(rows, ("default", "merged"))}
    assert found == ours | defaults | {"torch", "torch-compile", "ncnn"}
    assert {one.name for one in engines(["ours-*-int8"])} == {name for name in ours if name.endswith("int8")}


def test_networks_are_patterns_or_any_model():
    from comparison.contest import networks

    assert [one.name for one in networks(["ghostnet_*"])] == ["ghostnet_050", "ghostnet_100", "ghostnet_130"]
    assert [(one.name, one.spec) for one in networks(["sample:ghostnet_050"])] == [
        ("ghostnet_050_sample", "sample:ghostnet_050")
    ]


def test_the_family_ratio_is_the_geometric_mean_over_its_networks():
    from comparison.claims import claims

    groups = {
        "ghostnet_050": group(
            entry("ghostnet_050", "ours-openvino-fp32", 0.5), entry("ghostnet_050", "default-openvino", 1)
        ),
        "ghostnet_100": group(
            entry("ghostnet_100", "ours-openvino-fp32", 0.98), entry("ghostnet_100", "default-openvino", 1)
        ),
    }

    family, worst, *_ = claims(groups, {})

    assert family.ratio == pytest.approx(0.7)
    assert (family.limit, family.met) == (0.80, True)
    assert worst.ratio == pytest.approx(0.98)
    assert "ghostnet_100 on openvino" in worst.beside


def test_ours_has_float_activations_and_hybrid_comes_before_fp32():
    from comparison.claims import ours

    one = group(*(entry("n", f"ours-tflite-{p}", t) for p, t in (("fp32", 1), ("hybrid", 2), ("int8", 3))))

    assert ours(one, "n", "tflite").engine == "ours-tflite-hybrid"


def test_the_best_of_ours_is_compared_with_the_best_of_all_others():
    from comparison.claims import claims

    name = "ghostnet_100"
    rows = {"ours-onnx-fp32": 4, "ours-tflite-int8": 2, "ncnn": 5, "default-tflite": 4.5, "torch": 20}
    found = claims({name: group(*(entry(name, engine, time) for engine, time in rows.items()))}, {})

    best, floats = [one for one in found if one.text.startswith("best of ours")]
    assert (best.ratio, best.beside) == (pytest.approx(2 / 4.5), "ours-tflite-int8 / default-tflite")
    assert (floats.ratio, floats.met) == (pytest.approx(4 / 4.5), False)


def test_ghostnet_is_compared_with_mobilenet_in_the_same_runtime():
    from comparison.claims import claims

    rivals = group(
        entry("ghostnet_100", "ours-onnx-fp32", 3),
        entry("mobilenetv3_large", "default-onnx", 4),
        entry("mobilenetv3_large", "ours-onnx-fp32", 2),
    )

    default, ours = claims({}, {"onnx": rivals})

    assert (default.ratio, default.met) == (0.75, True)
    assert (ours.ratio, ours.met) == (1.5, False)


def test_the_report_shows_times_ratios_gates_and_what_is_missing():
    from comparison.contest import engines, networks
    from comparison.report import markdown

    name = "ghostnet_050"
    one = group(
        entry(name, "ours-onnx-int8", 0.002, verdict="failed"),
        entry(name, "default-onnx", 0.004),
        failed={f"{name} ncnn": "pnnx died", f"{name} merged-onnx": "not for this network"},
    )

    text = markdown({(name, 1, 1): one}, networks([name]), engines(["*"]), [])

    assert "| ours-onnx-int8 | 2.00 † |" in text
    assert "| ghostnet_050 | ours-onnx-int8 / default-onnx | 0.500 (0.500 to 0.500) |" in text
    assert "- ghostnet_050 ncnn: pnnx died" in text
    assert "not for this network" not in text


def test_the_figure_needs_a_published_accuracy(tmp_path):
    pytest.importorskip("matplotlib", reason="the figure needs the extra peers")
    from comparison.contest import networks
    from comparison.report import plot

    name = "ghostnet_050"
    across = {"onnx": group(entry(name, "ours-onnx-fp32", 0.002), entry(name, "default-onnx", 0.004))}

    assert plot(across, networks([name]), tmp_path / "figure")
    assert not plot(across, networks(["sample:ghostnet_050"]), tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


@pytest.mark.slow
def test_one_command_builds_measures_reports_and_goes_on_where_it_was(tmp_path):
    require("onnx")
    (tmp_path / "net.py").write_text(NET)
    words = ["-o", tmp_path, "--models", f"{tmp_path}/net.py:net", "--engines", "default-onnx,ours-onnx-fp32,torch"]
    words += ["--batch", "1", "--threads", "1", "--seconds", "0.1", "--json"]

    first, second = (command(*words) for _ in range(2))

    document = json.loads(first.stdout)
    assert set(document["medians_ms"]) == {
        f"net {engine} b1 t1" for engine in ("default-onnx", "ours-onnx-fp32", "torch")
    }
    assert json.loads(second.stdout) == document
    assert "measure" in first.stderr
    assert second.stderr == ""
    assert "ours-onnx-fp32 / default-onnx" in (tmp_path / "peers.md").read_text()


def command(*words):
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "peers.py", *map(str, words)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done

"""The target `qnn` from the command line: what it makes of a small network, what it says of it, what it refuses."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from tests.commands import assert_one_sentence, run
from tests.plugin.workplace import USUAL, bundle_of, workplace

pytestmark = pytest.mark.skipif(
    ("qnn" not in targets.TARGETS or importlib.util.find_spec("onnxruntime_qnn") is None)
    and "qnn" not in os.environ.get("GHOSTDEPLOY_REQUIRE", "").split(","),
    reason="the plugin ghostdeploy-qnn and Qualcomm's library are not installed here: make plugins",
)

NETWORK = """
import torch
from torch import nn


class Acosh(nn.Module):
    def forward(self, x):
        return torch.acosh(x * x + 2)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x):
        gate = self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * nn.functional.hardsigmoid(gate)


def network(*last):
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Gated(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4), *last).eval()


def acosh():
    return network(Acosh())
"""
BUNDLE = "build/network-qnn-int8"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with workplace(tmp_path_factory.mktemp("qnn"), NETWORK) as folder:
        yield folder


@pytest.fixture
def bundle(here, capsys):
    return bundle_of(capsys, "qnn")


def by_name(rows):
    return next(row for row in rows if row["target"] == "qnn")


def test_doctor_lists_it_and_the_command_that_repairs_it(capsys, monkeypatch):
    assert by_name(run(capsys, "doctor", "--json").document["targets"])["can_run"]

    found = targets.find_spec
    monkeypatch.setattr(targets, "find_spec", lambda name: None if name == "onnxruntime_qnn" else found(name))

    state = by_name(run(capsys, "doctor", "--json").document["targets"])
    assert (state["can_export"], state["can_run"]) == (False, False)
    assert state["install"] == "pip install ghostdeploy-qnn"
    assert_one_sentence(run(capsys, "export", "-t", "qnn", "--int8"), 4, "export to qnn needs onnxruntime_qnn")


def test_the_whole_graph_is_on_the_npu_gates_included(bundle):
    m = bundle.manifest
    assert m.placement.units.keys() == {"HTP"}
    assert m.placement.elsewhere == ()
    assert "sm8650" in m.placement.source
    assert m.estimates == ()  # the simulator's cycles are times of this computer
    assert m.quantization.float_by_rule == ()


def test_the_simulator_runs_the_payload_so_it_is_proven(bundle, capsys):
    m = bundle.manifest
    assert m.verdict == "passed"
    assert {m.parity.how, m.fidelity.how} == {"on a simulator"}
    answer = run(capsys, "verify", BUNDLE, "--json")
    assert answer.code == 0, answer.err
    (found,) = answer.document
    assert found["verdict"] == "passed"


def test_the_other_commands_take_it(bundle, capsys):
    assert "HTP" in run(capsys, "inspect", BUNDLE).out
    assert run(capsys, "eval", BUNDLE, "--data", "set.npz").code == 0
    assert run(capsys, "diagnose", BUNDLE).code == 0


def test_a_simulator_has_no_latency(bundle, capsys):
    assert_one_sentence(run(capsys, "bench", BUNDLE), 4, "runs on a simulator here, which has no latency to measure")


def test_qualcomms_greeting_stays_off_standard_output(bundle):
    code = f"import ghostdeploy as gd\nwith gd.load({BUNDLE!r}) as model:\n    print(model.info()['engine'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "qnn_htp_simulator\n"


def test_an_unknown_chip_is_a_usage_error(here, capsys):
    answer = run(capsys, "export", "net.py:network", "-t", "qnn", *USUAL, "--qnn-soc", "sm9999")
    assert_one_sentence(answer, 2, "'sm9999' is not one of 'sm8650'")


def test_an_operator_that_the_npu_lacks_is_refused_and_named(here, capsys):
    answer = run(capsys, "export", "net.py:acosh", "-t", "qnn", *USUAL, "--task", "raw")
    assert_one_sentence(answer, 5, "the Hexagon NPU of sm8650 lacks operators of the graph: 1 Acosh", "its log is")


def test_a_bundle_for_a_chip_that_is_not_known_is_refused(bundle, tmp_path, capsys):
    import shutil

    import msgspec

    from ghostdeploy.bundle.folder import MANIFEST
    from ghostdeploy.bundle.manifest import encode
    from ghostdeploy.bundle.writing import describe_file

    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    (copy / "compiled.json").write_text('{"soc": "sm1", "soc_model": 1}')
    files = tuple(describe_file(copy, one.path) for one in bundle.manifest.files)
    (copy / MANIFEST).write_bytes(encode(msgspec.structs.replace(bundle.manifest, files=files)))

    assert_one_sentence(run(capsys, "verify", copy), 3, "is compiled for 'sm1'")


@pytest.mark.full
@pytest.mark.parametrize("name", ["ghostnet_050", "g_ghost_regnetx_002"])
def test_the_sample_models_keep_97_percent_of_their_classes(name, tmp_path, capsys):
    made = run(capsys, "export", f"sample:{name}", "-t", "qnn", "--int8", "--out", tmp_path, "--json")
    assert made.code == 0, made.err
    m = open_bundle(tmp_path / f"{name}-qnn-int8").manifest
    assert m.agreement.count == 1000
    assert m.agreement.top1 >= 0.97
    assert m.placement.units.keys() == {"HTP"}


@pytest.mark.full
def test_it_keeps_the_promises_of_all_runtimes():
    """Those about INT8 in particular speak of engines that execute the payload here."""
    words = ("tests/conformance", "--ignore", "tests/conformance/test_int8.py", "-k", "qnn-int8-batch-1")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "-q", "-m", "", "-p", "no:cacheprovider"],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"GHOSTDEPLOY_REQUIRE": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100

"""The target `ethosu` from the command line: what it makes of a small network, what it says of it, what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.convert.base import RefusedError
from ghostdeploy.errors import UsageError
from tests.commands import assert_one_sentence, run
from tests.plugin.workplace import USUAL, bundle_of, workplace

pytestmark = pytest.mark.skipif(
    ("ethosu" not in targets.TARGETS or importlib.util.find_spec("ethosu") is None)
    and "ethosu" not in os.environ.get("GHOSTDEPLOY_REQUIRE", "").split(","),
    reason="the plugin ghostdeploy-ethosu and Vela are not installed here: make plugins",
)

NETWORK = """
import torch
from torch import nn


class Sorted(nn.Module):
    def forward(self, x):
        return torch.cumsum(x, dim=1)


def network(last=None):
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()]
    tail = [] if last is None else [last]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4), *tail).eval()


def summed():
    return network(Sorted())
"""
BUNDLE = "build/network-ethosu-int8"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with workplace(tmp_path_factory.mktemp("ethosu"), NETWORK) as folder:
        yield folder


@pytest.fixture
def bundle(here, capsys):
    return bundle_of(capsys, "ethosu")


def test_doctor_lists_it_and_the_command_that_repairs_it(capsys, monkeypatch):
    state = by_name(run(capsys, "doctor", "--json").document["targets"])
    assert state["can_export"]
    assert state["can_run"]

    found = targets.find_spec
    monkeypatch.setattr(targets, "find_spec", lambda name: None if name == "ethosu" else found(name))

    state = by_name(run(capsys, "doctor", "--json").document["targets"])
    assert not state["can_export"]
    assert state["reason"] == "ethosu not installed"
    assert state["install"] == "pip install ghostdeploy-ethosu"
    answer = run(capsys, "export", "-t", "ethosu", "--int8")
    assert_one_sentence(
        answer, 4, "export to ethosu needs ethosu, not installed here", "pip install ghostdeploy-ethosu"
    )


def by_name(rows):
    return next(row for row in rows if row["target"] == "ethosu")


def test_a_bundle_says_what_vela_says_and_names_what_that_assumes(bundle):
    m = bundle.manifest
    assert m.placement.units["NPU"] > 0
    assert m.placement.elsewhere == ()
    estimates = {one.name: one for one in m.estimates}
    assert {"inference time", "cycles", "SRAM"} <= estimates.keys()
    sources = {one.source for one in m.estimates}
    assert len(sources) == 1
    for word in ("Vela", "ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram", "500 MHz"):
        assert word in next(iter(sources))
    assert m.tools["ethos-u-vela"]


def test_it_is_compiled_and_its_graph_was_run_so_its_verdict_is_open(bundle, capsys):
    m = bundle.manifest
    assert m.verdict == "unverified"
    assert m.unverified_because.startswith("compiled, not executed")
    assert {m.parity.how, m.fidelity.how} == {"on a simulator"}
    assert m.execution.isa == "a simulator"
    answer = run(capsys, "verify", BUNDLE, "--json")
    assert answer.code == 0, answer.err
    (found,) = answer.document
    assert found["verdict"] == "unverified"
    assert found["parity"]["how"] == "on a simulator"


def test_the_other_commands_take_it(bundle, capsys):
    shown = run(capsys, "inspect", BUNDLE)
    assert shown.code == 0
    assert "not measured" in shown.out
    assert json.loads(run(capsys, "inspect", BUNDLE, "--json").out)["manifest"]["estimates"]
    assert run(capsys, "eval", BUNDLE, "--data", "set.npz").code == 0
    assert run(capsys, "diagnose", BUNDLE).code == 0


@pytest.mark.parametrize("words", [(), ("--against", "default")])
def test_a_simulator_has_no_latency(bundle, capsys, words):
    answer = run(capsys, "bench", BUNDLE, *words)
    assert_one_sentence(answer, 4, "runs on a simulator here, which has no latency to measure")


def test_tune_leaves_it_out(here, capsys):
    answer = run(capsys, "tune", "net.py:network", "-t", "ethosu", "--precision", "int8", "--calib", "set.npz")
    assert_one_sentence(answer, 4, "runs on a device with an Ethos-U, and there is none here")


def test_vela_gives_the_same_bytes_again(bundle):
    from ghostdeploy_ethosu.configuration import Configuration
    from ghostdeploy_ethosu.vela import compile_file

    again = compile_file(bundle.read("model.tflite"), Configuration.of({}))
    assert again.data == bundle.read("model_vela.tflite")


def test_the_engine_of_microcontrollers_gives_the_same_bytes(bundle):
    micro = pytest.importorskip("tflite_micro", reason="tflite-micro is not installed here: make plugins")
    assert micro is not None
    from tflite_micro.python.tflite_micro import runtime

    from ghostdeploy.runtimes import load

    engine = runtime.Interpreter.from_bytes(bundle.read("model.tflite"))
    numbers = [port["quantization_parameters"] for port in (engine.get_input_details(0), engine.get_output_details(0))]
    (scale, zero), (out_scale, out_zero) = ((one["scales"][0], one["zero_points"][0]) for one in numbers)
    (images,) = bundle.golden()[0].values()
    with load(bundle.path) as model:
        ours = model(images)
    for image, found in zip(images, ours, strict=True):
        engine.set_input(np.clip(np.rint(image[None] * np.float32(1 / scale)) + zero, -128, 127).astype(np.int8), 0)
        engine.invoke()
        wanted = (engine.get_output(0)[0].astype(np.float32) - np.float32(out_zero)) * out_scale
        assert np.array_equal(found, wanted)


def test_what_the_npu_lacks_stays_on_the_processor_and_is_named(here, capsys):
    made = run(capsys, "export", "net.py:summed", "-t", "ethosu", *USUAL, "--task", "raw", "--name", "summed")
    assert made.code in (0, 1), made.err
    placed = open_bundle("build/summed-ethosu-int8").manifest.placement
    assert placed.units["CPU"] == len(placed.elsewhere) > 0
    assert [one.operator for one in placed.elsewhere] == ["Dequantize", "Cumsum", "Quantize"]
    assert "3 operators run outside the NPU: Dequantize, Cumsum, Quantize" in " ".join(made.out.split())


def test_a_graph_without_integers_is_refused(bundle):
    from ghostdeploy.exporters.tflite import file as tf
    from ghostdeploy.exporters.tflite.quantize.float_simulation import in_float
    from ghostdeploy_ethosu.configuration import Configuration
    from ghostdeploy_ethosu.vela import compile_file

    floating = tf.pack(in_float(tf.read(bundle.read("model.tflite"))))
    with pytest.raises(RefusedError, match="Vela"):
        compile_file(floating, Configuration.of({}))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--ethosu-accelerator", "ethos-u55"), "'ethos-u55' is not one of"),
        (("--ethosu-system", "Ethos_U85_SYS_DRAM_Mid"), "ethos-u55-128 has no system configuration"),
        (("--ethosu-memory", "Dedicated_Sram"), "Ethos_U55_High_End_Embedded has read-only flash"),
    ],
)
def test_a_configuration_that_nobody_can_build_is_a_usage_error(here, capsys, words, sentence):
    assert_one_sentence(run(capsys, "export", "net.py:network", "-t", "ethosu", *USUAL, *words), 2, sentence)


def test_it_makes_int8_only(here, capsys):
    assert_one_sentence(run(capsys, "export", "net.py:network", "-t", "ethosu"), 2, "has no precision fp32")


def test_its_options_are_for_it_alone(here, capsys):
    answer = run(capsys, "export", "net.py:network", "-t", "onnx", "--ethosu-memory", "Sram_Only")
    assert_one_sentence(answer, 2, "--ethosu-memory has no effect on onnx")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram"),
        ({"ethosu_accelerator": "ethos-u65-512"}, "ethos-u65-512, Ethos_U65_High_End, Dedicated_Sram_384KB"),
        ({"ethosu_accelerator": "ethos-u85-256"}, "ethos-u85-256, Ethos_U85_SYS_DRAM_Mid, Dedicated_Sram_384KB"),
        (
            {"ethosu_accelerator": "ethos-u85-256", "ethosu_system": "Ethos_U85_SYS_Flash_Low"},
            "ethos-u85-256, Ethos_U85_SYS_Flash_Low, Shared_Sram",
        ),
    ],
)
def test_what_is_not_said_fits_the_accelerator(settings, text):
    from ghostdeploy_ethosu.configuration import Configuration

    assert str(Configuration.of(settings)) == text


def test_every_combination_that_is_allowed_compiles(bundle):
    from ghostdeploy_ethosu import configuration as known
    from ghostdeploy_ethosu.vela import compile_file

    data, tried = bundle.read("model.tflite"), 0
    for accelerator in ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256"):
        for system in known.SYSTEMS:
            for memory in known.MEMORY_MODES:
                names = {"ethosu_accelerator": accelerator, "ethosu_system": system, "ethosu_memory": memory}
                try:
                    chosen = known.Configuration.of(names)
                except UsageError:
                    continue
                tried += 1
                assert compile_file(data, chosen).placement.units["NPU"] > 0
    assert tried > 30


@pytest.mark.full
@pytest.mark.parametrize("name", ["ghostnet_050", "g_ghost_regnetx_002"])
def test_the_sample_models_keep_97_percent_of_their_classes(name, tmp_path, capsys):
    made = run(capsys, "export", f"sample:{name}", "-t", "ethosu", "--int8", "--out", tmp_path, "--json")
    assert made.code == 0, made.err
    m = open_bundle(tmp_path / f"{name}-ethosu-int8").manifest
    assert m.agreement.count == 1000
    assert m.agreement.top1 >= 0.97
    assert m.placement.units.keys() == {"NPU"}


@pytest.mark.full
def test_it_keeps_the_promises_of_all_runtimes():
    """Those about INT8 in particular speak of engines that execute the payload here."""
    words = ("tests/conformance", "--ignore", "tests/conformance/test_int8.py", "-k", "ethosu-int8-batch-1")
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

"""Every runtime looks the same from outside."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import InputError, UsageError
from ghostdeploy.runtimes.base import Runtime
from tests.bundles import CLASSES
from tests.conformance.cases import alike, step

KEYS = {
    "name",
    "target",
    "precision",
    "engine",
    "engine_version",
    "engine_precision",
    "int8_layers",
    "device",
    "threads",
    "streams",
    "profile",
    "queue",
    "async",
    "cache",
    "batch",
    "inputs",
    "outputs",
    "classes",
}


def test_public_methods_have_the_signatures_of_the_base_class(runtime):
    names = [name for name, _ in inspect.getmembers(Runtime, inspect.isfunction) if not name.startswith("_")]

    assert set(names) >= {"infer", "submit", "classify", "warmup", "info", "close"}
    for name in (*names, "__call__", "__enter__", "__exit__"):
        assert inspect.signature(getattr(type(runtime), name)) == inspect.signature(getattr(Runtime, name))


def test_a_backend_writes_only_its_hooks(runtime):
    own = {name for name in vars(type(runtime)) if not name.startswith("__") and name != "_abc_impl"}

    assert own - {"_start", "_kernels"} == {"engine", "_open", "_run", "_close"}


def test_info_says_what_runs_and_is_json(runtime, case, path, tiny):
    info = runtime.info()

    assert set(info) == KEYS
    assert json.loads(json.dumps(info)) == info
    assert info["engine"] in targets.find(case.target).runtimes
    assert info["engine_version"][0].isdigit()
    assert (info["name"], info["precision"], info["threads"]) == (open_bundle(path).manifest.name, case.precision, 1)
    shape = [case.batch, 3, 16, 16] if tiny.layout == "nchw" else [case.batch, 16, 16, 3]
    assert info["inputs"] == [{"name": "input", "dtype": "float32", "shape": shape, "layout": tiny.layout}]
    assert info["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [case.batch, CLASSES], "layout": None}]


def test_arithmetic_is_float32_whatever_the_processor_prefers(runtime, case):
    on_device = targets.find(case.target).device is not None and case.precision != "fp32"

    assert runtime.info()["engine_precision"] in ({"float32", "float16"} if on_device else {"float32"})


def test_int8_layers_are_computed_in_integers_on_x86(runtime, case):
    assert runtime.info()["int8_layers"] == ("integer" if case.precision == "int8" else "none")


def test_golden_vectors_are_met_within_the_tolerance_of_the_precision(path, side_path, pixel_path):
    for one in (path, side_path, pixel_path):
        found = gd.verify(one)
        assert (found.parity.verdict, found.failed_because) == ("passed", None)
        assert found.verdict == ("passed" if found.unverified_because is None else "unverified")
        assert found.verdict == "passed" or found.export_verdict == "unverified"


def test_a_call_gives_the_first_output_of_infer(runtime, tiny):
    batch = tiny.example(2)

    assert np.array_equal(runtime(batch["input"]), runtime.infer(batch)["logits"])


def test_outputs_come_by_name_with_dtype_and_shape(side_runtime, side_tiny):
    found = side_runtime.infer(side_tiny.example(5))

    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "logits": ("float32", (5, CLASSES)),
        "features": ("float32", (5, 8)),
    }


def test_a_model_with_two_inputs_cannot_be_called_with_one(side_runtime, tiny):
    with pytest.raises(UsageError, match="input, side") as caught:
        side_runtime(tiny.example(1)["input"])

    assert "infer" in caught.value.hint


def test_a_path_an_image_and_an_array_are_classified_alike(runtime, tmp_path, tiny):
    pixels = tiny.images(1)[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")

    found = [runtime.classify(source) for source in (tmp_path / "a.png", str(tmp_path / "a.png"), pixels)]
    found.append(runtime.classify(Image.fromarray(pixels)))

    assert all(one == found[0] for one in found)
    assert len(found[0]) == 5
    assert [p for _, p in found[0]] == sorted((p for _, p in found[0]), reverse=True)


def test_pixels_and_normalised_floats_give_the_same_classes(runtime, pixel_runtime, case, tiny):
    image = tiny.images(1)[0]

    ours, theirs = dict(runtime.classify(image)), dict(pixel_runtime.classify(image))

    assert list(ours) == list(theirs)
    logits = runtime(tiny.example(1)["input"])
    assert list(ours.values()) == pytest.approx(list(theirs.values()), abs=1e-3 + step(case, logits))


def test_probabilities_of_all_classes_sum_to_one(runtime, tiny):
    everything = runtime.classify(tiny.images(1)[0], k=CLASSES + 7)

    assert len(everything) == CLASSES
    assert sum(probability for _, probability in everything) == pytest.approx(1, abs=1e-12)


def test_classify_of_no_class_is_a_usage_error(runtime, tiny):
    with pytest.raises(UsageError, match="k is 0"):
        runtime.classify(tiny.images(1)[0], k=0)


def test_classify_of_a_file_that_is_no_image_names_it(runtime, tmp_path):
    (tmp_path / "notes.jpg").write_text("not an image")

    with pytest.raises(InputError, match=r"notes\.jpg"):
        runtime.classify(tmp_path / "notes.jpg")


def test_warmup_leaves_no_trace(runtime, tiny):
    batch = tiny.example(3)["input"]
    before = runtime(batch)

    runtime.warmup()
    runtime.warmup(runs=1)

    assert np.array_equal(runtime(batch), before)


def test_both_profiles_give_the_same_answers(path, runtime, case, tiny):
    batch = tiny.example(7)["input"]

    with gd.load(path, threads=2, profile="throughput") as other:
        assert other.info()["profile"] == "throughput"
        assert alike(case, other(batch), runtime(batch), arithmetic=runtime.info()["engine_precision"])


def test_a_device_that_is_not_there_is_unsupported_hardware(path):
    with pytest.raises(gd.GhostDeployError, match="NOSUCH") as caught:
        gd.load(path, device="NOSUCH")

    assert (type(caught.value).__name__, caught.value.exit_code) == ("UnsupportedHardware", 4)
    assert "CPU" in caught.value.hint

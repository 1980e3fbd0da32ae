"""The phone's input contract: Kotlin and Swift hold the manifest's numbers; the docs hold what the command writes."""

from __future__ import annotations

import ast
import re

import msgspec
import numpy as np
import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle, sha256
from ghostdeploy.bundle.manifest import decode
from ghostdeploy.errors import BundleError
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.samples import mobile
from tests.conftest import require
from tests.exported import sample_bundle
from tests.mobile_page import EXAMPLE, PAGE, filled


def value(text):
    """Reads a literal of either language."""
    if text in {"true", "false"}:
        return text == "true"
    if array := re.fullmatch(r"(?:floatArrayOf|intArrayOf)?[(\[](.*)[)\]]", text):
        return tuple(ast.literal_eval(item.strip().removesuffix("f")) for item in array[1].split(","))
    return ast.literal_eval(text)


def constants(source):
    """Returns {name in snake case: value} of a generated file."""
    found = {}
    for line in source.splitlines():
        if match := re.fullmatch(r"    (?:const )?(?:val|static let) (\w+)(?:: \[\w+\])? = (.+?)(?:  // .*)?", line):
            name = match[1] if match[1].isupper() else re.sub(r"([A-Z])", r"_\1", match[1])
            found[name.lower()] = value(match[2])
    return found


def expected(manifest):
    spec, (image, *_) = manifest.preprocess, manifest.inputs
    return {
        "model_name": manifest.name,
        "model_file": manifest.payload,
        "model_sha256": next(record.sha256 for record in manifest.files if record.path == manifest.payload),
        "labels_file": "labels.txt",
        "class_count": manifest.model.num_classes,
        "input_name": image.name,
        "input_shape": tuple(size or 1 for size in image.shape),
        "input_type": image.dtype,
        "channels_last": image.layout == "nhwc",
        "output_name": manifest.outputs[0].name,
        "resize_short_side": round(spec.size / spec.crop_fraction),
        "crop_size": spec.size,
        "interpolation": spec.interpolation,
        "normalise": image.dtype == "float32",
        "mean": spec.mean,
        "standard_deviation": spec.std,
    }


@pytest.fixture
def example():
    return decode(EXAMPLE.read_bytes(), where=str(EXAMPLE))


@pytest.mark.parametrize("write", [mobile.kotlin, mobile.swift])
def test_the_example_of_the_page_is_written_exactly(write, example):
    assert constants(write(example)) == expected(example)


@pytest.mark.parametrize("write", [mobile.kotlin, mobile.swift])
@pytest.mark.parametrize("fields", [{}, {"layout": "nhwc"}, {"batch": None, "size": 24}])
def test_the_contract_of_a_bundle_is_its_manifest(write, tiny_bundle, fields):
    manifest = open_bundle(tiny_bundle("onnx", **fields)).manifest

    assert constants(write(manifest)) == expected(manifest)


@pytest.mark.parametrize("write", [mobile.kotlin, mobile.swift])
def test_every_digit_of_a_number_survives(write, example):
    spec = Preprocess(
        size=97, crop_fraction=0.9, interpolation="bilinear", mean=(0.0, 1e-07, 0.1 + 0.2), std=(1, 2.5, 1e3)
    )

    found = constants(write(msgspec.structs.replace(example, preprocess=spec)))

    assert (found["mean"], found["standard_deviation"]) == (spec.mean, spec.std)
    assert (found["crop_size"], found["resize_short_side"]) == (97, 108)


@pytest.mark.slow
@pytest.mark.parametrize("write", [mobile.kotlin, mobile.swift])
def test_an_app_that_knows_only_the_contract_finds_the_classes_that_python_finds(write, tmp_path_factory):
    require("tflite")
    from ai_edge_litert.interpreter import Interpreter

    bundle = sample_bundle(tmp_path_factory, "ghostnet_050", "tflite", precision="fp32")
    known = constants(write(open_bundle(bundle).manifest))
    interpreter = Interpreter(str(bundle / known["model_file"]))
    interpreter.allocate_tensors()
    labels = (bundle / known["labels_file"]).read_text("utf-8").splitlines()
    assert sha256(bundle / known["model_file"]) == known["model_sha256"]
    assert tuple(interpreter.get_input_details()[0]["shape"]) == known["input_shape"]
    assert (known["input_type"], known["channels_last"], known["normalise"]) == ("float32", True, True)
    assert len(labels) == known["class_count"]

    found = []
    for path in samples.example_images():
        image = Image.open(path).convert("RGB").resize((known["resize_short_side"],) * 2, Image.Resampling.BILINEAR)
        pixels = (np.asarray(image, np.float32)[None] / 255 - known["mean"]) / known["standard_deviation"]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels.astype(np.float32))
        interpreter.invoke()
        found.append(labels[int(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax())])

    with gd.load(bundle) as model:
        assert found == [model.classify(path, k=1)[0][0] for path in samples.example_images()]
    assert known["interpolation"] == "bilinear"
    assert known["crop_size"] == known["resize_short_side"]


def test_names_are_quoted_for_each_language(example):
    manifest = msgspec.structs.replace(example, name='a "b" \\(c) $d')

    assert '"a \\"b\\" \\\\(c) \\$d"' in mobile.kotlin(manifest)
    assert '"a \\"b\\" \\\\(c) $d"' in mobile.swift(manifest)


def test_a_line_break_in_a_name_does_not_become_code(example):
    with pytest.raises(BundleError, match="expected printable characters"):
        mobile.kotlin(msgspec.structs.replace(example, name="a\nimport evil"))


@pytest.mark.parametrize("fields", [{"side": True}, {"batch": 4}])
def test_a_bundle_that_takes_more_than_one_image_is_refused(tiny_bundle, fields, capsys):
    assert mobile.main([str(tiny_bundle("onnx", **fields)), "--kotlin"]) == 3
    assert "expected one image" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "write"), [("--kotlin", mobile.kotlin), ("--swift", mobile.swift)])
def test_the_command_prints_or_writes_the_file(tiny_bundle, tmp_path, capsys, option, write):
    bundle = tiny_bundle("onnx")
    text = write(open_bundle(bundle).manifest)

    assert mobile.main([str(bundle), option]) == 0
    for _ in range(2):  # what it wrote itself it may write again
        assert mobile.main([str(bundle), option, "-o", str(tmp_path / "contract")]) == 0

    assert capsys.readouterr().out == text
    assert (tmp_path / "contract").read_text("utf-8") == text


def test_what_cannot_be_done_has_its_exit_code(tiny_bundle, tmp_path, capsys):
    assert mobile.main([str(tmp_path / "none"), "--swift"]) == 3
    assert mobile.main([str(tiny_bundle("onnx")), "--swift", "-o", str(tmp_path / "none" / "contract")]) == 4
    with pytest.raises(SystemExit) as caught:
        mobile.main([str(tiny_bundle("onnx"))])

    assert caught.value.code == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_page_holds_what_the_command_writes():
    page = PAGE.read_text("utf-8")

    assert filled(page) == page, "run: python -m tests.mobile_page"


@pytest.mark.parametrize("language", ["kotlin", "swift"])
def test_the_written_code_uses_only_constants_that_are_generated(language, example):
    page = PAGE.read_text("utf-8")
    written = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[1]
    generated = re.findall(r"(?:val|let) (\w+)", getattr(mobile, language)(example))

    used = set(re.findall(r"ModelContract\.(\w+)", written))

    assert used
    assert used <= set(generated)


def test_a_file_of_somebody_else_is_not_overwritten(tiny_bundle, tmp_path, capsys):
    (tmp_path / "App.swift").write_text("years of work")

    assert mobile.main([str(tiny_bundle("onnx")), "--swift", "-o", str(tmp_path / "App.swift")]) == 2
    assert "was not written by this sample" in capsys.readouterr().err
    assert (tmp_path / "App.swift").read_text() == "years of work"

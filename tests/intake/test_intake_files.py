"""Files and options beside an ONNX model that do not go together: one sentence, and nothing is lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ghostdeploy import samples, targets
from ghostdeploy.deploy.intake.inputs import read_labels
from ghostdeploy.deploy.plan.requirements import require_export
from ghostdeploy.errors import DataError, MissingDependency
from tests.commands import assert_one_sentence, run
from tests.onnx_files import behind, saved, small, weight

WHOLE = small().SerializeToString()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("does not exist",)),
        (b"", ("0 bytes",)),
        (b"hello, I am a text file\n", ("not an ONNX file",)),
        (WHOLE[: len(WHOLE) // 2], ("damaged or not an ONNX file",)),
        (WHOLE[:-3], ("bad.onnx",)),
        (bytes(255 - byte for byte in WHOLE), ("damaged or not an ONNX file",)),
        (samples.checkpoint("ghostnet_050").read_bytes()[:4000], ("bad.onnx",)),
    ],
    ids=["missing", "empty", "text", "half", "nearly whole", "inverted", "a checkpoint"],
)
def test_a_file_that_is_no_onnx_is_refused(content, words, capsys, tmp_path):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, *words)


def test_a_folder_called_like_a_model_is_refused(capsys, tmp_path):
    (tmp_path / "bad.onnx").mkdir()

    answer = run(capsys, "export", tmp_path / "bad.onnx", "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "cannot be read")


def test_every_truncation_and_every_flipped_byte_is_a_sentence_or_a_model(tmp_path):
    from ghostdeploy.deploy.intake.onnx.model import OnnxModel, open_onnx
    from ghostdeploy.errors import BadInput

    rng = np.random.default_rng(0)
    path = tmp_path / "bad.onnx"
    messages = []
    for _ in range(150):
        data = bytearray(WHOLE)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data if rng.random() < 0.7 else data[: rng.integers(len(data))])
        try:
            assert isinstance(open_onnx(path), OnnxModel)
        except BadInput as error:
            messages.append(error.message)
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


def beside(tmp_path, location):
    """Writes a model whose weights lie elsewhere."""
    folder = tmp_path / "models"
    folder.mkdir()
    model = small()
    (tmp_path / "secret.data").write_bytes(weight(model, "stem.conv.weight").raw_data)
    tensor = weight(model, "stem.conv.weight")
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return saved(model, folder / "bad.onnx")


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "back", "empty"])
def test_weights_outside_the_folder_are_refused(kind, capsys, tmp_path):
    places = {
        "parent": "../secret.data",
        "absolute": str(tmp_path / "secret.data"),
        "link": "link.data",
        "back": "sub/../../secret.data",
        "empty": "",
    }
    path = beside(tmp_path, places[kind])
    if kind == "link":
        (path.parent / "link.data").symlink_to(tmp_path / "secret.data")

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "outside its folder", "refused")


def test_weights_that_are_missing_or_short_are_named(capsys, tmp_path):
    path = beside(tmp_path, "weights.data")
    missing = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")
    (path.parent / "weights.data").write_bytes(b"1234")
    short = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(missing, 3, "weights.data", "copy that file beside it")
    assert_one_sentence(short, 3, "stem.conv.weight", "4 bytes")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--weights", "some.pth"), ("--weights", "ONNX file")),
        (("--num-classes", "5"), ("--num-classes", "ONNX file")),
        (("--align-channels", "8"), ("--align-channels", "PyTorch")),
        (("--image-size", "64"), ("32 pixels", "--image-size says 64")),
        (("--int8",), ("calibration images", "--calib")),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_an_option_that_says_nothing_to_a_finished_file_is_refused(options, words, capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    answer = run(capsys, "export", path, "-t", "onnx", *options, "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, *words)


def test_an_onnx_file_as_weights_is_sent_to_its_place(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    answer = run(capsys, "export", "--weights", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, "is a whole model", f"ghostdeploy export {path}")


def test_a_batch_that_is_built_into_the_graph_is_named(capsys, tmp_path):
    model = small(batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 8, 16, 16]), "fixed"))
    path = saved(behind(model, helper.make_node("Reshape", ["inner", "fixed"], ["map"])), tmp_path / "mine.onnx")

    free = run(capsys, "export", path, "-t", "onnx", "--batch", "dynamic", "-o", tmp_path / "out")
    single = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out", "--json")

    assert_one_sentence(free, 2, "batch 1", "batch dynamic", "--batch 1")
    assert single.document["bundles"][0]["manifest"]["verdict"] == "passed"


def test_a_target_that_is_made_from_pytorch_takes_no_onnx_file(capsys, tmp_path, monkeypatch):
    row = dataclasses.replace(targets.find("onnx"), name="fromtorch", intake=None)
    monkeypatch.setattr(targets, "ROWS", (*targets.ROWS, row))
    path = saved(small(), tmp_path / "mine.onnx")

    named = run(capsys, "export", path, "-t", "fromtorch", "-o", tmp_path)
    every = run(capsys, "export", path, "-t", "all", "-o", tmp_path, "--dry-run", "--json")

    assert_one_sentence(named, 2, "fromtorch is made from the PyTorch model", "-t onnx")
    assert "fromtorch" not in every.document["targets"]


def test_tflite_is_made_from_the_pytorch_model(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    answer = run(capsys, "export", path, "-t", "tflite", "-o", tmp_path)

    assert_one_sentence(answer, 2, "tflite is made from the PyTorch model", "-t onnx, openvino, tensorrt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("No such file", "one class name on each line")),
        ("a\n\nb\nc\nd\n", ("names 4 of 5 classes: line 2 is empty", "on every line")),
        ("a\n\n \nb\nc\n\n", ("names 3 of 5 classes: lines 2, 3 are empty",)),
        ("a\n\nb\n", ("2 lines and 1 empty ones", "5 classes")),
    ],
)
def test_a_label_file_is_told_what_is_wrong_with_it(text, words, tmp_path):
    path = tmp_path / "names.txt"
    if text is not None:
        path.write_text(text)

    with pytest.raises(DataError) as caught:
        read_labels(path, None, 5)

    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"
    assert "UTF-8" not in caught.value.hint


def test_labels_that_do_not_fit_are_refused(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")
    (tmp_path / "names.txt").write_text("a\nb\n")

    answer = run(capsys, "export", path, "-t", "onnx", "--labels", tmp_path / "names.txt", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "2 lines", "5 classes")


def test_missing_packages_are_named_without_torch(monkeypatch):
    monkeypatch.setattr(targets, "find_spec", lambda name: None)

    with pytest.raises(MissingDependency, match="export to openvino needs onnx, onnxsim, onnxruntime") as caught:
        require_export([targets.find("openvino")], targets.intake_of("model.onnx"))
    assert caught.value.hint == 'pip install "ghostdeploy[intake,openvino-runtime]"'

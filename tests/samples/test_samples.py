"""What ships is what its papers say: image sets, photographs, trained models, and the script that made them."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import sys
import zlib

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ghostdeploy import samples
from ghostdeploy.arrays import read_arrays
from ghostdeploy.errors import DataError, UsageError
from ghostdeploy.models import create_model
from ghostdeploy.preprocess import Preprocess, prepare
from ghostdeploy.samples import classify_image
from ghostdeploy.samples import prepare_fashion_mnist as preparing
from ghostdeploy.samples import train_fashion_mnist as training

MODELS = ("ghostnet_050", "g_ghost_regnetx_002")


def test_the_image_sets_have_the_promised_size_and_balance():
    evaluation, calibration = read_arrays(samples.evaluation_set()), read_arrays(samples.calibration_set())

    assert np.bincount(evaluation["labels"]).tolist() == [100] * 10
    assert np.bincount(calibration["labels"]).tolist() == [52, 52, *[51] * 8]
    assert evaluation["images"].shape == (1000, 28, 28, 3)
    assert calibration["images"].shape == (512, 28, 28, 3)


def test_no_calibration_image_is_a_test_image():
    test = {zlib.crc32(image.tobytes()) for image in read_arrays(samples.evaluation_set())["images"]}
    calibration = {zlib.crc32(image.tobytes()) for image in read_arrays(samples.calibration_set())["images"]}

    assert not test & calibration
    assert len(calibration) == 512


def test_every_photograph_is_small_in_colour_and_has_its_licence():
    licences = samples.data_path("photos/LICENSES.md").read_text("utf-8")

    assert len(samples.photos()) == 12
    for path in samples.photos():
        image = Image.open(path)
        pixels = np.asarray(image, np.int16)
        assert max(pixels.shape) <= 320
        assert not image.getexif()
        assert "comment" not in image.info
        assert np.abs(pixels[..., 0] - pixels[..., 2]).mean() > 3, f"{path.name} is gray"
        assert f"| {path.name} |" in licences
    assert sorted(re.findall(r"^\| (\S+\.jpg) \|", licences, re.MULTILINE)) == [path.name for path in samples.photos()]
    assert sum(path.stat().st_size for path in samples.photos()) < 400_000


def test_there_is_one_example_image_per_class_out_of_the_evaluation_set():
    names = [path.stem for path in samples.example_images()]
    known = {image.tobytes() for image in read_arrays(samples.evaluation_set())["images"]}

    assert all(np.asarray(Image.open(path)).tobytes() in known for path in samples.example_images())
    assert sorted(names) == sorted(re.sub(r"[^a-z]", "_", label.lower()) for label in preparing.LABELS)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", MODELS)
def test_a_trained_model_is_as_good_as_its_card_says(name):
    path = samples.checkpoint(name)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    card = path.with_suffix(".md").read_text("utf-8")
    evaluation = read_arrays(samples.evaluation_set())
    spec = msgspec.json.decode(header["preprocess"], type=Preprocess)
    model = create_model(name, num_classes=10)
    model.load_state_dict(load_file(path))

    with torch.inference_mode():
        logits = model(torch.from_numpy(prepare(list(evaluation["images"]), spec)))
    measured = float((logits.argmax(1).numpy() == evaluation["labels"]).mean())

    assert float(header["top1"]) >= 0.92
    assert measured == pytest.approx(float(header["top1"]), abs=0.02)
    assert f"{float(header['top1']):.2%}" in card
    assert f"`{header['command']}`" in card
    assert f"--seed {header['seed']}" in header["command"]
    assert f"Licence of the weights: {header['licence']}." in card
    assert (header["model"], header["num_classes"]) == (name, "10")
    assert json.loads(header["labels"]) == list(preparing.LABELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_command_in_the_header_is_one_the_script_takes(name, tmp_path):
    with safe_open(samples.checkpoint(name), framework="pt") as file:
        words = shlex.split(file.metadata()["command"])

    with pytest.raises(DataError, match="cannot be read"):  # the options parse, only the data are missing
        training.main([*words[3:], "--source", str(tmp_path / "none"), "--out", str(tmp_path)])


def test_an_unknown_sample_is_a_usage_error_with_a_suggestion():
    with pytest.raises(UsageError, match="ghostnet_05") as caught:
        samples.checkpoint("ghostnet_05")

    assert "ghostnet_050" in caught.value.hint


def test_a_shipped_file_that_is_gone_is_one_sentence():
    with pytest.raises(DataError, match=r"none\.npz is missing"):
        samples.data_path("none.npz")


def test_a_balanced_draw_is_even_seeded_and_without_repeats():
    labels = np.random.default_rng(0).integers(0, 10, 1000)

    chosen = preparing.balanced(labels, 53, seed=1)

    assert np.bincount(labels[chosen]).tolist() == [6] * 3 + [5] * 7
    assert len(set(chosen.tolist())) == 53
    assert np.array_equal(chosen, preparing.balanced(labels, 53, seed=1))
    assert not np.array_equal(chosen, preparing.balanced(labels, 53, seed=2))


def idx(path, array):
    kind = b"\x00\x00\x08" + bytes([array.ndim])
    data = kind + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data))


def flipped(data):
    """Inverts a stretch of the compressed stream."""
    return data[:20] + bytes(255 - byte for byte in data[20:60]) + data[60:]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (gzip.compress(b"\x00\x00\x00\x07" + bytes(8)), "starts with 7"),
        (gzip.compress(b"\x00\x00\x08\x01" + (9).to_bytes(4, "big") + bytes(3)), "3 bytes"),
        (gzip.compress(b"\x00\x00\x08\x03" + bytes(5)), "inside its header"),
        (gzip.compress(bytes(1000))[:-12], "cannot be read"),
        (flipped(gzip.compress(bytes(range(256)) * 4)), "cannot be read"),
    ],
    ids=["missing", "wrong number", "short", "header", "truncated", "flipped"],
)
def test_a_damaged_idx_file_is_one_sentence(content, words, tmp_path):
    path = tmp_path / "labels.gz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match=words):
        preparing.read_idx(path)


@pytest.mark.usefixtures("one_thread")
def test_the_scripts_make_sets_and_a_resumable_model_from_idx_files(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 60)):
        labels = np.arange(count, dtype=np.uint8) % 10
        idx(tmp_path / f"{split}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), np.uint8))
        idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels)
    monkeypatch.setattr(preparing, "EVAL_COUNT", 20)
    monkeypatch.setattr(preparing, "CALIBRATION_COUNT", 25)
    monkeypatch.setattr(training, "HELD_OUT", 44)
    arguments = ["--model", "repghostnet_050", "--source", str(tmp_path), "--out", str(tmp_path), "--batch", "64"]

    preparing.main(["--source", str(tmp_path), "--out", str(tmp_path / "data")])
    training.main([*arguments, "--cycles", "1:0.003"])
    training.main([*arguments, "--cycles", "1:0.003,2:0.001"])

    assert (
        np.bincount(read_arrays(tmp_path / "data" / "fashion_mnist_calib.npz")["labels"]).tolist() == [3] * 5 + [2] * 5
    )
    assert re.findall(r"epoch (\d)", capsys.readouterr().out) == ["1", "2", "3"]
    create_model("repghostnet_050", num_classes=10).load_state_dict(load_file(tmp_path / "repghostnet_050.safetensors"))
    assert "--cycles 1:0.003,2:0.001 --batch 64 --seed 0" in (tmp_path / "repghostnet_050.md").read_text("utf-8")


def test_the_example_app_prints_the_best_classes_of_each_image(tiny_bundle, capsys):
    image = str(samples.example_images()[0])

    code = classify_image.main([str(tiny_bundle("onnx")), image, image, "-k", "2"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert len(lines) == 4
    assert all(re.fullmatch(rf"{re.escape(image)}: .+ \d+\.\d%", line) for line in lines)
    assert lines[:2] == lines[2:]


def test_the_example_app_reports_bad_input_in_one_sentence_with_its_exit_code(tiny_bundle, tmp_path, capsys):
    assert classify_image.main([str(tmp_path / "none"), "cat.jpg"]) == 3
    assert classify_image.main([str(tiny_bundle("onnx")), str(tmp_path / "none.png")]) == 3

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all(str(tmp_path / "none") in line for line in errors)


def test_the_example_app_goes_on_after_a_bad_image(tiny_bundle, tmp_path, capsys):
    good = str(samples.example_images()[0])
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
    bad = [str(tmp_path / "none.png"), str(tmp_path / "damaged.png")]

    code = classify_image.main([str(tiny_bundle("onnx")), bad[0], good, bad[1], good, "-k", "1"])

    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert code == 3
    assert [line.partition(": ")[0] for line in said.out.splitlines()] == [good, good]
    assert [bad[0] in errors[0], bad[1] in errors[1], len(errors)] == [True, True, 2]


def test_the_samples_and_the_example_app_import_no_torch():
    code = "import sys, ghostdeploy.samples.classify_image; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_does_not_overwrite_a_model_that_it_did_not_make(tmp_path, capsys):
    (tmp_path / "ghostnet_050.safetensors").write_text("years of work")

    with pytest.raises(SystemExit) as caught:
        training.main(["--source", str(tmp_path), "--out", str(tmp_path)])

    assert caught.value.code == 2
    assert "exists already and is not of a training run to resume" in capsys.readouterr().err
    assert (tmp_path / "ghostnet_050.safetensors").read_text() == "years of work"

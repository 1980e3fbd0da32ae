"""A network whose first output is a map, boxes or a top-k result is not a classifier: nobody counts its classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ghostdeploy as gd
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.convert.base import About
from ghostdeploy.exporters.tflite.metadata import append_labels
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.runtimes.scores import scored_classes
from ghostdeploy.samples import classify_image, classify_stream, mobile
from ghostdeploy.tasks.classify import classes_of
from tests.commands import assert_one_sentence, run
from tests.signing import sealed

SIZE = 16
SPEC = {"size": SIZE}


class Net(nn.Module):
    """Gives what `kind` says of four maps."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Conv2d(3, 4, 3, padding=1)
        self.kind = kind

    def forward(self, x):
        maps = self.maps(x)
        scores = maps.mean((2, 3))
        match self.kind:
            case "mask":
                return maps.argmax(1)
            case "maps":
                return maps
            case "boxes":
                return maps.flatten(2).transpose(1, 2), scores
            case "top-k":
                return scores.topk(3)
            case "indices":
                return scores.argsort(1)
            case "scores":
                return scores, maps
            case _:
                return maps.mean((2, 3), keepdim=True)


SHAPES = {
    "mask": "N, 16, 16",
    "maps": "N, 4, 16, 16",
    "boxes": "N, 256, 4",
    "top-k": "N, 3",
    "indices": "N, 4",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function kind → bundle of a network, made once."""
    made = {}

    def export(kind):
        if kind not in made:
            out = tmp_path_factory.mktemp("exported")
            made[kind] = gd.export(Net(kind).eval(), target="onnx", out=out, preprocess=SPEC)
        return made[kind]

    return export


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("kind", SHAPES)
def test_no_class_is_counted_or_named(kind, exported, image, capsys):
    bundle = exported(kind)

    assert (bundle.manifest.model.num_classes, bundle.labels(), scored_classes(bundle.manifest)) == (0, [], 0)
    assert (bundle.path / bundles.LABELS).read_bytes() == b""
    said = run(capsys, "inspect", bundle.path)
    assert (said.code, "not a classifier" in said.out, "4 classes" in said.out) == (0, True, False)
    sentence = f"is not a classifier: its first output has shape ({SHAPES[kind]}), which has no classes"
    answer = run(capsys, "run", bundle.path, image)
    assert (answer.code, "probability" in answer.out, bundle.manifest.outputs[0].name in answer.out) == (0, False, True)
    data = image.parent / "data"
    np.savez(f"{data}.npz", images=np.zeros((4, 20, 20, 3), np.uint8), labels=np.arange(4))
    assert_one_sentence(run(capsys, "eval", bundle.path, "--data", f"{data}.npz"), 3, sentence)


@pytest.mark.parametrize("kind", SHAPES)
def test_its_outputs_are_read_as_they_are(kind, exported, image):
    batch = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)

    with gd.load(exported(kind).path) as model, torch.inference_mode():
        expected = Net(kind).eval()(torch.from_numpy(batch))
        first = expected if isinstance(expected, torch.Tensor) else expected[0]
        np.testing.assert_allclose(model(batch), first.numpy(), atol=1e-5)
        assert model.info()["classes"] == 0
        with pytest.raises(gd.errors.BundleError, match="is not a classifier"):
            model.classify(image)


@pytest.mark.parametrize("kind", ["scores", "column"])
def test_scores_name_classes(kind, exported, image):
    bundle = exported(kind)

    assert (bundle.manifest.model.num_classes, scored_classes(bundle.manifest), bundle.labels()) == (4, 4, list("0123"))
    with gd.load(bundle.path) as model:
        assert len(model.classify(image)) == 4


def test_what_counts_as_scores():
    falling = np.float32([[3, 2], [2, 1]])
    scores = np.float32([[3, 2], [1, 2]])
    places = np.int64([[0, 1], [1, 0]])

    assert classes_of({"y": falling}) == classes_of({"y": falling, "z": places[:, :1]}) == 2
    assert classes_of({"y": scores, "z": places}) == classes_of({"y": scores[:, :, None, None]}) == 2
    assert classes_of({"y": falling, "z": places}) is classes_of({"y": places}) is None
    assert classes_of({"y": scores[:, None]}) is classes_of({"y": scores[:, :, None].repeat(2, 2)}) is None


def test_labels_of_the_user_stay_beside_a_map(tmp_path, image, capsys):
    names = tmp_path / "names.txt"
    names.write_text("sky\nroad\ncar\ntree\n")

    bundle = gd.export(Net("mask").eval(), target="onnx", out=tmp_path, preprocess=SPEC, labels=str(names))

    assert (bundle.labels(), scored_classes(bundle.manifest)) == (["sky", "road", "car", "tree"], 0)
    assert_one_sentence(run(capsys, "run", bundle.path, image), 3, "is not a classifier")


def test_a_bundle_that_counted_the_rows_of_its_map_loads_and_is_no_classifier(exported, tmp_path, image, capsys):
    folder = tmp_path / "old"
    folder.mkdir()
    for file in exported("mask").path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    writing.write_labels(folder, list(map(str, range(SIZE))))
    manifest = json.loads((folder / bundles.MANIFEST).read_text("utf-8"))
    manifest["model"]["num_classes"] = SIZE
    record = writing.describe_file(folder, bundles.LABELS)
    for file in manifest["files"]:
        if file["path"] == bundles.LABELS:
            file |= {"bytes": record.bytes, "sha256": record.sha256}
    (folder / bundles.MANIFEST).write_text(sealed(manifest), "utf-8")

    assert run(capsys, "verify", folder).code == 0
    assert "not a classifier" in run(capsys, "inspect", folder).out
    assert "probability" not in run(capsys, "run", folder, image).out


@pytest.mark.parametrize("kind", ["top-k", "indices"])
def test_a_gate_that_needs_classes_is_refused(kind, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)

    options = {"target": "onnx", "precision": "int8", "calibration": images, "out": tmp_path, "preprocess": SPEC}
    with pytest.raises(gd.errors.UsageError, match=r"classify judges by the top-1 class, .* of scores"):
        gd.export(Net(kind).eval(), task="classify", **options)


def test_the_samples_say_so(exported, image, capsys):
    bundle = exported("boxes").path

    assert classify_image.main([str(bundle), str(image), str(image)]) == 3
    assert classify_stream.main(["--bundle", str(bundle), "--source", str(image.parent)]) == 3
    assert capsys.readouterr().err.count("error: ") == 2
    source = mobile.kotlin(exported("boxes").manifest)
    assert ("CLASS_COUNT" in source, "LABELS_FILE" in source, "softmax" in source) == (False, False, False)
    assert 'OUTPUT_NAME = "output_0"  // not class scores' in source
    assert "CLASS_COUNT = 4" in mobile.kotlin(exported("scores").manifest)


def test_a_tflite_file_without_labels_says_nothing_of_classes():
    about = About(name="net", labels=(), preprocess=Preprocess(size=SIZE))

    assert append_labels(b"file", about) == b"file"

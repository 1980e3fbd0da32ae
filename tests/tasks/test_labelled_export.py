"""`--data` of every task: the measure of the float model, of the artefact, and what was lost between them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove import measuring
from ghostdeploy.deploy.prove.diagnose import diagnose
from ghostdeploy.errors import DataError, GateFailed
from ghostdeploy.progress import Stages
from ghostdeploy.tasks.table import task_of
from tests.commands import assert_one_sentence, run
from tests.tasks.test_own_networks import SIZE, TASKS, exported

LETTERBOX = {"size": SIZE, "resize": "letterbox", "crop_fraction": 1.0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty pictures of different sizes."""
    root = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(5)
    (root / "images").mkdir()
    sizes = []
    for index in range(20):
        height, width = (int(side) for side in rng.integers(6, 16, 2))
        blocks = rng.integers(0, 256, (height, width, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(blocks).save(root / "images" / f"{index:02}.png")
        sizes.append((height * 10, width * 10))
    return root, sizes


def answers(task, root):
    """Returns what the float model says of each picture, as a runtime would."""
    path = exported(task, "onnx", root / "float", "fp32", calibration=None, preprocess=LETTERBOX, replace=True).path
    with gd.load(path) as runtime:
        return [runtime.predict(image) for image in sorted((root / "images").glob("*.png"))]


def labelled(task, root, sizes):
    """Writes labels that are what the float model says, and returns what `--data` takes."""
    found = answers(task, root)
    names = [f"{index:02}.png" for index in range(len(sizes))]
    if task == "detect":
        boxes = [
            {"id": 0, "image_id": i, "category_id": 7 + int(label), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for i, one in enumerate(found)
            for label, _, (x0, y0, x1, y1) in one
        ]
        document = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "categories": [{"id": 7 + i, "name": str(i)} for i in range(3)],
            "annotations": boxes,
        }
        (root / "boxes.json").write_text(json.dumps(document))
        return root / "boxes.json"
    if task == "landmarks":
        off = np.random.default_rng(6).normal(0, 3, (20, 5, 2))
        points = {name: (one + d).tolist() for name, one, d in zip(names, found, off, strict=True)}
        (root / "points.json").write_text(json.dumps(points))
        return root / "points.json"
    if task == "embed":
        vectors = np.stack(found)
        cosine = vectors @ vectors.T
        pairs = [(a, b) for a in range(20) for b in range(a)]
        middle = np.median([cosine[a, b] for a, b in pairs])
        rows = [f"{names[a]},{names[b]},{int(cosine[a, b] > middle)}" for a, b in pairs]
        (root / "pairs.csv").write_text("\n".join(["a,b,same", *rows]))
        return root / "pairs.csv"
    (root / "masks").mkdir(exist_ok=True)
    for name, one in zip(names, found, strict=True):
        Image.fromarray(one).save(root / "masks" / name)
    return root


MAIN = {"detect": ("map", 0.7), "landmarks": ("nme", 0.25), "embed": ("accuracy", 0.95), "segment": ("miou", 1.0)}


@pytest.mark.parametrize("task", TASKS)
def test_the_measure_of_the_float_model_and_of_int8_stand_in_the_manifest(task, pictures, tmp_path):
    root, sizes = pictures
    data = labelled(task, root, sizes)
    limit = {"landmarks": 1.0}.get(task, 0.5)

    manifest = exported(task, "onnx", tmp_path, data=data, preprocess=LETTERBOX, max_drop=limit).manifest

    name, best = MAIN[task]
    found = manifest.measured
    assert (manifest.fidelity.count, manifest.fidelity.required_agreement) == (20, None)
    assert manifest.quantization.calibration.held_out == 0
    assert found is not None
    assert (found.measure, found.count, found.max_drop) == (name, 20, limit)
    assert found.reference_figures[name] == pytest.approx(best, abs=0.1)
    assert found.drop_ci95[0] <= found.drop_ci95[1]


def test_a_drop_beyond_the_limit_sends_layers_back_to_float_and_fails_with_figures(pictures, tmp_path):
    root, sizes = pictures
    data = labelled("segment", root, sizes)

    with pytest.raises(GateFailed):
        exported("segment", "onnx", tmp_path, data=data, preprocess=LETTERBOX, max_drop=0.0, name="net")

    manifest = json.loads((tmp_path / "net-onnx-int8" / "manifest.json").read_text())
    assert "miou goes from 1.0000 to 0." in manifest["failed_because"]
    assert len(diagnose(tmp_path / "net-onnx-int8").gains) == 3


def test_decisions_are_required_beside_the_measure_where_that_was_asked(pictures, tmp_path):
    root, sizes = pictures
    data = labelled("segment", root, sizes)

    found = exported("segment", "onnx", tmp_path, data=data, preprocess=LETTERBOX, max_drop=0.5, min_agreement=0.96)

    assert found.manifest.fidelity.required_agreement == 0.96


@pytest.mark.parametrize("task", TASKS)
def test_outputs_that_are_there_are_measured_as_those_of_a_run(task, pictures, tmp_path):
    root, sizes = pictures
    data = measuring.read(task, labelled(task, root, sizes))
    bundle = open_bundle(exported(task, "onnx", tmp_path, "fp32", calibration=None, preprocess=LETTERBOX).path)
    spec, labels = bundle.manifest.preprocess, bundle.labels()
    meant = task_of(bundle.manifest.task, spec.sides)
    seen = []
    with gd.load(bundle.path) as runtime:

        def run_once(batch):
            seen.append(dict(zip((one.name for one in bundle.manifest.outputs), (runtime(batch),), strict=True)))
            return seen[-1]

        wanted = measuring.measure(run_once, meant, data, spec, labels, Stages(None))
    outputs = {name: np.concatenate([one[name] for one in seen]) for name in seen[0]}

    assert measuring.of_outputs(outputs, meant, data, spec, labels).figures() == wanted.figures()


def test_a_set_of_other_classes_is_refused(pictures, tmp_path):
    root, sizes = pictures
    path = labelled("detect", root, sizes)
    document = json.loads(path.read_text())
    document["categories"].append({"id": 99, "name": "more"})
    (root / "more.json").write_text(json.dumps(document))

    with pytest.raises(DataError) as caught:
        exported("detect", "onnx", tmp_path, data=root / "more.json", preprocess=LETTERBOX)

    assert "has 4 categories, expected the 3 classes of the model" in caught.value.message


@pytest.mark.parametrize("task", TASKS)
def test_eval_measures_a_bundle_and_compares_it_with_another(task, pictures, tmp_path, capsys):
    root, sizes = pictures
    data = labelled(task, root, sizes)
    options = {"calibration": None, "preprocess": LETTERBOX}
    one = exported(task, "onnx", tmp_path, "fp32", name="one", **options).path
    two = exported(task, "onnx", tmp_path, "fp32", name="two", **options).path

    done = run(capsys, "eval", one, two, "--data", data, "--reference", one, "--max-drop", "0.01", "--json")
    shown = run(capsys, "eval", one, two, "--data", data, "--reference", one)

    name, best = MAIN[task]
    assert done.code == 0, done.err
    assert [(found["task"], found["measure"], found["count"]) for found in done.document] == [(task, name, 20)] * 2
    assert done.document[0]["figures"][name] == pytest.approx(best, abs=0.25)
    assert done.document[1]["comparison"]["drop"] == pytest.approx(0, abs=1e-6)
    assert (shown.code, name in shown.out) == (0, True)


def test_eval_of_a_detector_without_labels_is_one_sentence(tmp_path, capsys):
    path = exported("detect", "onnx", tmp_path, "fp32", calibration=None).path

    assert_one_sentence(run(capsys, "eval", path), 2, "no labelled set to evaluate task detect on", "--data")

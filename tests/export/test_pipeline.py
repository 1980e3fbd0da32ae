"""The whole line on the shipped trained models: PyTorch checkpoint in, proven bundle out."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.class_order import LABEL_NUMBERS
from ghostdeploy.errors import CheckpointError, GateFailed, UsageError
from tests.commands import assert_one_sentence, run
from tests.exported import sample_bundle
from tests.further import further
from tests.signing import sealed

MODELS = ("ghostnet_050", "g_ghost_regnetx_002")
TARGETS = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "fp16"))
SIZED = {"size": 64}
NETWORK = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))
"""


@pytest.fixture(
    params=further([(m, *t) for m in MODELS for t in TARGETS], usual=[(MODELS[0], *t) for t in TARGETS]), ids="-".join
)
def path(request, tmp_path_factory):
    name, target, precision = request.param
    return sample_bundle(tmp_path_factory, name, target, precision=precision)


def test_the_verdict_is_passed_within_the_promised_margins(path):
    manifest = open_bundle(path).manifest

    assert manifest.verdict == manifest.parity.verdict == manifest.accuracy.verdict == "passed"
    assert manifest.accuracy.count == 1000
    assert (manifest.accuracy.left_out, manifest.accuracy.notes) == ((), ())
    assert manifest.accuracy.class_order == LABEL_NUMBERS
    assert abs(manifest.accuracy.drop) <= 0.001
    if manifest.precision == "fp32":
        assert manifest.parity.max_abs <= 1e-4 * manifest.parity.reference_max_abs


def test_the_manifest_tells_where_the_model_came_from_and_what_was_done(path):
    manifest = open_bundle(path).manifest

    assert manifest.model.source == f"sample:{manifest.model.name}"
    assert len(manifest.model.weights_sha256) == 64
    assert manifest.model.num_classes == 10
    assert {"ghostdeploy", "torch", "onnx"} <= set(manifest.tools)
    assert sum(one.sites for one in manifest.passes if "atch" in one.name) > 40
    assert all(one.max_relative_error <= 1e-9 for one in manifest.passes)
    stored = "f16" if manifest.precision == "fp16" else "f32" if manifest.target == "openvino" else "FLOAT"
    assert stored in manifest.precision_achieved.how


def test_golden_vectors_are_what_the_unfolded_model_says(path):
    bundle = open_bundle(path)
    inputs, outputs = bundle.golden()
    model = gd.create_model(bundle.manifest.model.name, num_classes=10)
    from safetensors.torch import load_file

    model.load_state_dict(load_file(samples.checkpoint(bundle.manifest.model.name)))
    with torch.inference_mode():
        expected = model(torch.from_numpy(inputs["input"])).numpy()

    assert np.allclose(outputs["logits"], expected, rtol=0, atol=1e-5)


def test_the_bundle_classifies_the_shipped_images(path):
    with gd.load(path) as runtime:
        first = {image.stem: runtime.classify(image, k=1)[0][0] for image in samples.example_images()}

    right = [stem for stem, label in first.items() if re.sub(r"[^a-z]", "_", label.lower()) == stem]
    assert len(right) >= 8, first


def test_verify_eval_run_and_inspect_answer_on_a_real_bundle(path, capsys, tmp_path):
    verified = run(capsys, "verify", path)
    copy = tmp_path / path.name
    shutil.copytree(path, copy)
    evaluated = run(capsys, "eval", copy, path, "--reference", path, "--json")
    classified = run(capsys, "run", path, samples.example_images()[0], "--json")
    inspected = run(capsys, "inspect", path)

    assert verified.code == 0
    assert "would have passed" in " ".join(verified.out.split())
    assert evaluated.document[0]["comparison"]["agreement"]["value"] == 1.0
    assert evaluated.document[0]["comparison"]["answer"] == "within"
    assert evaluated.document[1]["comparison"] is None  # the reference itself
    assert sum(one["probability"] for one in classified.document[0]["classes"]) <= 1.0
    assert open_bundle(path).manifest.files[0].sha256[:20] in inspected.out.replace("\n", "")


def own():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(inplace=True),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A function target → bundle of a small network for one image at a time."""
    made = {}

    def export(target):
        if target not in made:
            out = tmp_path_factory.mktemp(target)
            made[target] = gd.export(own(), target=target, name="own", out=out, preprocess=SIZED).path
        return made[target]

    return export


def test_pixels_baked_into_the_graph_give_the_same_logits(single, tmp_path):
    baked = gd.export(own(), target="openvino", input="uint8-nhwc", out=tmp_path, preprocess=SIZED).path
    image = samples.example_images()[0]

    manifest = open_bundle(baked).manifest
    with gd.load(single("openvino")) as one, gd.load(baked) as two:
        assert dict(one.classify(image)) == pytest.approx(dict(two.classify(image)), abs=1e-5)
    assert (manifest.inputs[0].dtype, manifest.inputs[0].shape) == ("uint8", (1, 64, 64, 3))
    assert manifest.verdict == "passed"


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("batch", further([None, 3], usual=[None]))
def test_any_batch_size_gives_the_same_rows(target, batch, single, tmp_path):
    other = gd.export(own(), target=target, batch=batch, out=tmp_path, preprocess=SIZED).path
    rows = open_bundle(single(target)).golden()[0]["input"][:7]

    with gd.load(single(target)) as one, gd.load(other) as two:
        assert np.allclose(one(rows), two(rows), rtol=0, atol=1e-4)
        assert two(rows[:1]).shape == (1, 4)
    assert open_bundle(other).manifest.inputs[0].shape[0] == batch


def test_a_users_own_module_is_exported_from_python_and_left_unchanged(tmp_path):
    module = own()
    before = {key: value.clone() for key, value in module.state_dict().items()}

    bundle = gd.export(module, target="onnx", name="own", out=tmp_path, preprocess={"size": 48})

    assert bundle.path == tmp_path / "own-onnx-fp32"
    assert bundle.manifest.verdict == "passed"
    assert bundle.manifest.accuracy is None
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert gd.verify(bundle.path).verdict == "passed"


def test_a_factory_in_a_file_is_exported_from_the_command_line(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))\n"
    )

    answer = run(
        capsys, "export", f"{tmp_path / 'mine.py'}:small", "-t", "onnx", "--image-size", "64", "-o", tmp_path, "--json"
    )

    assert answer.code == 0, answer.err
    manifest = answer.document["bundles"][0]["manifest"]
    assert (manifest["model"]["num_classes"], manifest["verdict"]) == (7, "passed")


def test_a_bundle_whose_golden_outputs_are_of_another_model_is_exit_1(single, tmp_path, capsys):
    broken = shutil.copytree(single("openvino"), tmp_path / "broken")
    spoil_golden(broken)
    answer = run(capsys, "verify", broken)
    assert answer.code == 1
    assert "failed" in answer.out


def spoil_golden(folder):
    """Makes an otherwise sound bundle whose golden outputs another model gave."""
    from ghostdeploy.bundle.folder import GOLDEN, MANIFEST
    from ghostdeploy.bundle.writing import describe_file, write_golden

    inputs, outputs = open_bundle(folder).golden()
    write_golden(folder, inputs, {name: array * 1.01 for name, array in outputs.items()})
    document = json.loads((folder / MANIFEST).read_text())
    record = describe_file(folder, GOLDEN)
    for file in document["files"]:
        if file["path"] == GOLDEN:
            file |= {"bytes": record.bytes, "sha256": record.sha256}
    (folder / MANIFEST).write_text(sealed(document))


def test_a_failed_gate_raises_in_python(tmp_path, monkeypatch):
    from ghostdeploy.deploy.prove import tolerance

    strict = tolerance.TOLERANCES | {"fp32": gd_tolerance(max_abs_relative=0.0, cosine=1.0)}
    monkeypatch.setattr("ghostdeploy.deploy.prove.parity.TOLERANCES", strict)

    with pytest.raises(GateFailed, match="failed its gates"):
        gd.export(own(), target="onnx", name="own", out=tmp_path, preprocess=SIZED)
    assert open_bundle(tmp_path / "own-onnx-fp32").manifest.verdict == "failed"


def gd_tolerance(**bounds):
    from ghostdeploy.bundle.manifest import Tolerance

    return Tolerance(why="stricter than any engine", **bounds)


def test_a_model_that_drops_a_batch_of_one_is_refused_before_conversion(tmp_path):
    class Squeezing(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3), keepdim=True).squeeze()

    with pytest.raises(CheckpointError, match=r"shape \(3,\) for 1 images, expected numbers of shape \(1, classes\)"):
        gd.export(Squeezing(), target="onnx", out=tmp_path, preprocess={"size": 32})
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    answer = run(capsys, "export", "-t", "all", "-o", tmp_path, "--dry-run")

    assert answer.code == 0
    assert "onnx → openvino" in answer.out
    assert "1000 images" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_eval_without_images_asks_for_them(tmp_path, capsys):
    torch.manual_seed(0)
    own = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
    bundle = gd.export(own, target="onnx", name="tiny", out=tmp_path, preprocess={"size": 32})

    assert_one_sentence(run(capsys, "eval", bundle.path), 2, "--data")


def test_without_a_model_it_is_the_trained_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    bundle = gd.export()

    assert bundle.path.resolve().parent == tmp_path / "build"
    assert bundle.manifest.model.source == "sample:ghostnet_050"
    assert bundle.manifest.verdict == "passed"


def test_a_sound_network_is_no_failure_where_no_image_may_be_lost(tmp_path, capsys):
    """It loses none, and no number of images shows that it never will."""
    (tmp_path / "net.py").write_text(NETWORK)
    words = (f"{tmp_path}/net.py:net", "--image-size", 28, "--crop-fraction", 1, "-t", "onnx", "-o", tmp_path)

    answer = run(capsys, "export", *words, "--data", samples.evaluation_set(), "--max-drop", 0, "--json")

    assert answer.code == 0, answer.err
    accuracy = open_bundle(tmp_path / "net-onnx-fp32").manifest.accuracy
    assert (accuracy.verdict, accuracy.drop, accuracy.max_drop) == ("unverified", 0, 0)


def test_export_refuses_an_unknown_field():
    with pytest.raises((UsageError, TypeError)):
        gd.export(target="onnx", preprocess={"sise": 32})

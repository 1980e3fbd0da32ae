"""ONNX files as models of an export: proven bundles, the original file as reference, no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle, sha256
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.exporters.onnx.intake import module_path
from ghostdeploy.models.source import load_model
from tests.commands import run
from tests.conftest import absence, require
from tests.exported import sample_bundle
from tests.folding import count_ops
from tests.further import further
from tests.onnx_files import CALIB, PREPROCESS, saved, small, unfolded
from tests.shared import shared_folder

MODELS = ("ghostnet_050", "g_ghost_regnetx_002")
TARGETS = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "fp16"))


def export(capsys, path, out, *options):
    """Exports a file and returns its manifest, with the folder of the bundle."""
    answer = run(capsys, "export", path, "-o", out, "--json", *options)
    assert answer.code == 0, answer.err
    bundle = answer.document["bundles"][0]
    return open_bundle(bundle["path"]).manifest, out / bundle["manifest"]["name"]


def kinds(path):
    return Counter(node.op_type for node in onnx.load(path / "model.onnx").graph.node)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function: name, target, precision → bundle of the unfolded file of a sample model, labelled images at hand."""
    spec = {"size": 64, "crop_fraction": 1.0, "mean": (0.286,) * 3, "std": (0.353,) * 3}

    def folder(name, target="onnx", precision="fp32"):
        require(target)
        with shared_folder(tmp_path_factory, f"from-onnx-{name}-{precision}") as root:
            out = root / "bundles"
            if not out.exists():
                rows = [one for one, kind in TARGETS if kind == precision and absence(one) is None]
                facts = {"precision": precision, "preprocess": spec, "data": samples.evaluation_set()}
                config = ExportConfig(targets=tuple(rows), out=root / "new", **facts)
                load = resolve_model(unfolded(tmp_path_factory, name), config)
                assert run_export(load, config, name=name).failures == {}
                (root / "new").rename(out)
        return out / f"{name}-{target}-{precision}"

    return folder


@pytest.mark.parametrize("name", further(MODELS, usual=MODELS[:1]))
@pytest.mark.parametrize("target", further(TARGETS, usual=TARGETS[:2]), ids="-".join)
def test_an_unfolded_export_of_a_trained_model_passes_all_gates(name, target, trained):
    folder = trained(name, *target)
    manifest = open_bundle(folder).manifest

    assert manifest.verdict == manifest.parity.verdict == manifest.accuracy.verdict == "passed"
    assert manifest.accuracy.count == 1000
    assert abs(manifest.accuracy.drop) <= 0.001
    assert manifest.accuracy.reference_top1 > 0.92
    assert (manifest.inputs[0].name, manifest.outputs[0].name) == ("image", "scores")
    assert manifest.preprocess.size == 64
    assert gd.verify(folder).verdict == "passed"


@pytest.mark.parametrize("name", further(MODELS, usual=MODELS[:1]))
def test_the_passes_leave_what_the_fold_of_the_pytorch_model_leaves(name, trained, tmp_path_factory):
    before = Counter(node.op_type for node in onnx.load(unfolded(tmp_path_factory, name)).graph.node)
    folder = trained(name)
    manifest = open_bundle(folder).manifest

    mine = open_bundle(sample_bundle(tmp_path_factory, name, "onnx", precision="fp32"))
    records = {one.name: one for one in manifest.passes}
    assert records["FoldBatchNorm"].sites == before["BatchNormalization"] > 40
    assert 0 < records["FoldBatchNorm"].max_relative_error <= 1e-9
    assert not {"BatchNormalization", "Identity", "CastLike", "Expand"} & kinds(folder).keys()
    folded, _ = gd.fold(load_model(f"sample:{name}").module, torch.zeros(1, 3, 64, 64) + 0.5)
    assert kinds(folder)["Conv"] == count_ops(folded)["conv2d"]
    assert (manifest.model.params, manifest.model.macs) == (mine.manifest.model.params, mine.manifest.model.macs)


def test_layers_are_called_like_the_modules_whose_weights_they_hold(trained):
    name = MODELS[0]
    modules = dict(gd.create_model(name, num_classes=10).named_modules())

    graph = onnx.load(trained(name) / "model.onnx").graph
    layers = [node.name for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert set(layers) <= modules.keys()
    assert len({node.name for node in graph.node}) == len(graph.node)


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/conv_stem/Conv", "conv_stem"),
        (
            "/blocks/blocks.0/blocks.0.1/ghost1/cheap_operation/cheap_operation.0/Conv",
            "blocks.0.1.ghost1.cheap_operation.0",
        ),
        ("/stem/conv/Conv_1", "stem.conv"),
        ("/Conv", None),
        ("Conv_3", None),
        ("/stem/conv/Gemm", None),
    ],
)
def test_paths_of_older_torch_exporters_are_read_as_modules(node, module):
    assert module_path(node, "Conv") == module


def test_an_export_of_the_older_torch_exporter_keeps_module_names(capsys, tmp_path):
    """Its weights are called `onnx::Conv_123`, its nodes by their paths; opset 13, initializers listed as inputs."""
    model = small(opset=13)
    for node in model.graph.node:
        if node.op_type == "Conv":
            stem = node.input[1].removesuffix(".weight")
            node.name = f"/{stem.partition('.')[0]}/{stem.rpartition('.')[2]}/Conv"
    for number, tensor in enumerate(model.graph.initializer):
        for node in model.graph.node:
            node.input[:] = [f"onnx::{number}" if name == tensor.name else name for name in node.input]
        tensor.name = f"onnx::{number}"
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)

    manifest, folder = export(capsys, saved(model, tmp_path / "old.onnx"), tmp_path, "-t", "onnx")

    assert manifest.verdict == "passed"
    names = [node.name for node in onnx.load(folder / "model.onnx").graph.node if node.op_type == "Conv"]
    assert names == ["stem.conv", "wide.conv"]


def test_the_manifest_says_that_the_file_itself_is_the_reference(trained, tmp_path_factory):
    path, bundle = unfolded(tmp_path_factory, MODELS[0]), open_bundle(trained(MODELS[0]))
    manifest = bundle.manifest

    inputs, outputs = bundle.golden()
    assert np.array_equal(outputs["scores"], GraphRunner(onnx.load(path))(inputs["image"])[0])
    assert manifest.model.source == "onnx:ghostnet_050.onnx, run by ONNX Runtime without optimisation"
    assert manifest.model.weights_sha256 == sha256(path)
    assert {"ghostdeploy", "onnx", "onnxruntime", "onnxsim"} == set(manifest.tools)


def test_int8_of_an_onnx_file_passes_its_gates(capsys, tmp_path, tmp_path_factory):
    require("openvino")
    path = unfolded(tmp_path_factory, MODELS[0])

    manifest, folder = export(
        capsys, path, tmp_path, "-t", "openvino", "--int8", "--task", "classify", *PREPROCESS, *CALIB
    )

    assert manifest.verdict == manifest.agreement.verdict == manifest.execution.verdict == "passed"
    calibration = manifest.quantization.calibration
    assert calibration.count + calibration.held_out == 512
    assert manifest.agreement.count == calibration.held_out > 200
    assert manifest.precision_achieved.int8_mac_share >= 0.8
    notes = run(capsys, "diagnose", folder, "--json").document["notes"]
    assert "no equalization: it needs the PyTorch model" in notes


def test_names_outputs_and_no_ops_of_the_users_own(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    manifest, folder = export(capsys, path, tmp_path, "-t", "onnx")

    assert manifest.verdict == "passed"
    assert [spec.name for spec in manifest.inputs] == ["pixels"]
    assert [(spec.name, spec.shape) for spec in manifest.outputs] == [("scores", (1, 5)), ("map", (1, 8, 16, 16))]
    assert {one.name: one.sites for one in manifest.passes} == {
        "RemoveNoOps": 3,
        "FoldConstants": 0,
        "FoldBatchNorm": 4,
        "MergeBranches": 2,
    }
    assert kinds(folder) == {"Conv": 2, "Relu": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}


@pytest.mark.parametrize("opset", [11, 12, 13, 21])
def test_an_old_opset_is_brought_to_18_and_a_newer_one_stays(opset, capsys, tmp_path):
    path = saved(small(opset=opset), tmp_path / "mine.onnx")

    manifest, folder = export(capsys, path, tmp_path, "-t", "onnx")

    assert manifest.verdict == "passed"
    assert onnx.load(folder / "model.onnx").opset_import[0].version == max(opset, 18)


@pytest.mark.parametrize(
    ("batch", "options", "shape"),
    [
        ("N", (), (1, 3, 32, 32)),
        ("N", ("--batch", "4"), (4, 3, 32, 32)),
        ("N", ("--batch", "dynamic"), (None, 3, 32, 32)),
        (3, ("--batch", "3"), (3, 3, 32, 32)),
        (3, ("--batch", "dynamic", "--input", "uint8-nhwc"), (None, 32, 32, 3)),
        (1, ("--input", "uint8-nhwc", "--mean", "0.5,0.5,0.5"), (1, 32, 32, 3)),
    ],
)
def test_batch_and_input_are_what_was_asked_for(batch, options, shape, capsys, tmp_path):
    path = saved(small(batch=batch), tmp_path / "mine.onnx")

    manifest, folder = export(capsys, path, tmp_path, "-t", "onnx", *options)

    assert (manifest.verdict, manifest.inputs[0].shape) == ("passed", shape)
    with gd.load(folder) as runtime:
        inputs, outputs = open_bundle(folder).golden()
        got = runtime.infer({"pixels": inputs["pixels"][:5]})
    assert np.allclose(got["scores"], outputs["scores"][:5], rtol=0, atol=1e-4)


def test_free_height_and_width_take_the_image_size(capsys, tmp_path):
    path = saved(small(size="side"), tmp_path / "mine.onnx")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")

    manifest, folder = export(
        capsys, path, tmp_path, "-t", "onnx", "--image-size", "40", "--labels", tmp_path / "names.txt"
    )

    assert (manifest.preprocess.size, manifest.inputs[0].shape) == (40, (1, 3, 40, 40))
    assert open_bundle(folder).labels() == list("abcde")


def test_weights_beside_the_file_are_read_and_hashed(capsys, tmp_path):
    path = tmp_path / "mine.onnx"
    onnx.save(small(), path, save_as_external_data=True, location="mine.data", size_threshold=0)
    inside = saved(small(), tmp_path / "whole.onnx")

    one, folder = export(capsys, path, tmp_path / "one", "-t", "onnx")
    two, whole = export(capsys, inside, tmp_path / "two", "-t", "onnx")

    assert (folder / "model.onnx").read_bytes() == (whole / "model.onnx").read_bytes()
    assert one.model.weights_sha256 not in (sha256(path), two.model.weights_sha256)


def test_what_the_file_does_not_say_is_a_warning(capsys, tmp_path):
    path = saved(small(size="side"), tmp_path / "mine.onnx")

    silent = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "one")
    told = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "two", "--image-size", "32", "--mean", "0,0,0")

    assert "ImageNet's mean and std, see --mean and --std" in silent.err
    assert "exported for 224 pixels, see --image-size" in silent.err
    assert "warning" not in told.err


def test_python_takes_a_path(tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    bundle = gd.export(path, target="onnx", name="other", out=tmp_path)

    assert (bundle.path, bundle.manifest.verdict) == (tmp_path / "other-onnx-fp32", "passed")


def test_a_dry_run_shows_the_plan(capsys, tmp_path):
    path = saved(small(), tmp_path / "mine.onnx")

    found = run(capsys, "export", path, "-t", "all", "-o", tmp_path, "--dry-run", "--json").document

    assert (found["model"], found["family"], found["preprocess"]["size"]) == ("mine", "onnx", 32)
    assert "onnx" in found["targets"]


def test_no_torch_is_needed(tmp_path):
    """Parent and converters run with a torch that cannot be imported in front of the real one."""
    path = saved(small(), tmp_path / "mine.onnx")
    for name in ("torch", "onnxscript", "safetensors"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text(f"raise ImportError('{name} is blocked')\n")
    places = [str(tmp_path / "blocked"), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(place for place in places if place)}
    command = [sys.executable, "-m", "ghostdeploy", "export"]
    options = ["-t", "onnx", "-t", "openvino", "-o", tmp_path]

    mine = subprocess.run([*command, path, *options], env=environment, capture_output=True, text=True, check=False)
    sample = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)

    assert mine.returncode == 0, mine.stderr
    assert open_bundle(tmp_path / "mine-openvino-fp32").manifest.verdict == "passed"
    assert "torch is blocked" in sample.stderr
    assert sample.returncode != 0

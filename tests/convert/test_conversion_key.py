"""The key of a conversion in the cache: all that matters is in it, by its content."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest
import torch

from ghostdeploy.bundle.manifest import Calibration
from ghostdeploy.convert.base import ExportJob, QuantizeSpec
from ghostdeploy.deploy.export import conversion_key as keys
from ghostdeploy.deploy.export.conversion_key import conversion_key
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.target import Recipe
from ghostdeploy.tasks.base import TaskInfo
from tests.convert.test_conversion_cache import network, save


@pytest.fixture
def asked(tmp_path):
    """A quantizer's job in a workspace."""
    work = tmp_path / "work"
    (work / "onnx").mkdir(parents=True)
    (work / "onnx" / "model.onnx").write_bytes(b"graph")
    np.save(work / "calibration.npy", np.zeros(4))
    return ExportJob(
        source=str(work / "onnx" / "model.onnx"),
        folder=str(work / "quantize"),
        result=str(work / "quantize.json"),
        precision="int8",
        input_names=("input",),
        output_names=("logits",),
        dynamic_batch=False,
        settings={"calibration": str(work / "calibration.npy")},
    )


def key_of(job, tmp_path, exporter="ghostdeploy.a:B", work="work"):
    return conversion_key(exporter, job, tmp_path / work)


def test_the_key_does_not_know_where_the_workspace_is(asked, tmp_path):
    first = key_of(asked, tmp_path)
    (tmp_path / "work").rename(tmp_path / "moved")
    moved = ExportJob(
        **{name: _moved(getattr(asked, name)) for name in asked.__struct_fields__},
    )

    assert key_of(moved, tmp_path, work="moved") == first


def _moved(value):
    if isinstance(value, dict):
        return {key: _moved(one) for key, one in value.items()}
    return value.replace("/work/", "/moved/") if isinstance(value, str) else value


@pytest.mark.parametrize(
    "change",
    [
        lambda work: (work / "onnx" / "model.onnx").write_bytes(b"graph!"),
        lambda work: (work / "onnx" / "model.bin").write_bytes(b"weights beside it"),
        lambda work: np.save(work / "calibration.npy", np.ones(4)),
    ],
    ids=["source", "beside the source", "calibration pixels"],
)
def test_every_file_of_a_job_is_in_the_key(change, asked, tmp_path):
    first = key_of(asked, tmp_path)
    change(tmp_path / "work")

    assert key_of(asked, tmp_path) != first


@pytest.mark.parametrize(
    "fields",
    [{"precision": "fp32"}, {"dynamic_batch": True}, {"modules": ("stem",)}, {"settings": {}}, {"channels_last": True}],
    ids=lambda fields: next(iter(fields)),
)
def test_every_field_of_a_job_is_in_the_key(fields, asked, tmp_path):
    assert key_of(msgspec.structs.replace(asked, **fields), tmp_path) != key_of(asked, tmp_path)


def test_exporter_and_steering_variables_are_in_the_key(asked, tmp_path, monkeypatch):
    first = key_of(asked, tmp_path)
    assert key_of(asked, tmp_path, exporter="ghostdeploy.a:C") != first

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert key_of(asked, tmp_path) != first


def test_a_path_outside_the_workspace_never_stands_for_its_content(asked, tmp_path):
    outside = tmp_path / "elsewhere.bin"
    outside.write_bytes(b"1")
    job = msgspec.structs.replace(asked, settings={"file": str(outside)})
    other = msgspec.structs.replace(asked, settings={"file": str(tmp_path / "elsewhere2.bin")})
    shutil.copy(outside, tmp_path / "elsewhere2.bin")

    assert key_of(job, tmp_path) != key_of(other, tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"), [("set.npz", "set.npz"), ("shirt/1.png", ".")], ids=["a file of arrays", "a folder of images"]
)
def test_labelled_images_are_in_the_key_by_their_content(name, folder, asked, tmp_path):
    file = tmp_path / "labelled" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"pixels")
    judged = QuantizeSpec(
        recipe=Recipe(name="static", activations="uint8"),
        preprocess=Preprocess(size=8, crop_fraction=1.0, interpolation="bilinear"),
        conditioned=None,
        calibration="",
        fingerprint=Calibration(count=1, sha256="0" * 64),
        gate="",
        task=TaskInfo(),
        reference={},
        labels=None,
        labelled=str(tmp_path / "labelled" / folder),
        golden="",
        max_drop=0.01,
        required_agreement=None,
        required_db=25.0,
        values_judge=True,
    )
    job = msgspec.structs.replace(asked, quantization=judged)
    first = key_of(job, tmp_path)
    file.write_bytes(b"others")

    assert key_of(job, tmp_path) != first


def test_a_program_saved_twice_has_one_key_and_another_weight_another(tmp_path):
    def job(name, module):
        work = tmp_path / name
        work.mkdir()
        save(work / "program.pt2", module)
        return ExportJob(
            source=str(work / "program.pt2"),
            folder="",
            result="",
            precision="fp32",
            input_names=("input",),
            output_names=("logits",),
            dynamic_batch=False,
        )

    changed = network()
    with torch.no_grad():
        changed[-1].bias[0] += 1
    keys = [
        key_of(job(name, module), tmp_path, work=name) for name, module in (("a", None), ("b", None), ("c", changed))
    ]

    assert keys[0] == keys[1] != keys[2]


def test_a_change_in_a_plugins_own_sources_is_another_conversion(asked, tmp_path, monkeypatch):
    package = tmp_path / "plugged_exporter"
    package.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def key(source):
        (package / "__init__.py").write_text(source)
        keys._sources.cache_clear()
        return key_of(asked, tmp_path, "plugged_exporter:Exporter")

    first = key("A = 1\n")
    assert key("A = 2\n") != first
    assert key("A = 1\n") == first

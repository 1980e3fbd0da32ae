"""Numbers and paths of the Python API that make no sense are usage errors, not Python's own; empty is no folder."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import InputError, UsageError
from tests.commands import assert_one_sentence, run

NO_COUNTS = ("2", 1.5, None, -1, True, float("nan"), [3])


@pytest.fixture(scope="module")
def model(tiny_bundle):
    with gd.load(tiny_bundle("onnx")) as runtime:
        yield runtime


def image():
    return np.zeros((20, 20, 3), np.uint8)


@pytest.mark.parametrize("value", [*NO_COUNTS, 0], ids=repr)
def test_k_is_a_whole_number(model, value):
    with pytest.raises(UsageError, match=r"k is .*, expected a whole number from 1"):
        model.classify(image(), k=value)


def test_a_number_of_numpy_is_a_number(model):
    assert len(model.classify(image(), k=np.int64(2))) == 2


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_runs_of_a_warm_up_are_a_whole_number(model, value):
    with pytest.raises(UsageError, match="runs is"):
        model.warmup(value)


@pytest.mark.parametrize("name", ["threads", "queue"])
@pytest.mark.parametrize("value", ["2", 1.5, True, 0], ids=repr)
def test_threads_and_queue_are_whole_numbers(tiny_bundle, name, value):
    with pytest.raises(UsageError, match=f"{name} is {value!r}"):
        gd.load(tiny_bundle("onnx"), **{name: value})


@pytest.mark.parametrize("target", ["onnx", "openvino", "tflite"])
def test_threads_and_queue_of_numpy_are_numbers(tiny_bundle, target):
    with gd.load(tiny_bundle(target), threads=np.int64(1), queue=np.int32(3)) as runtime:
        facts = json.loads(json.dumps(runtime.info()))

    assert (facts["threads"], facts["queue"]) == (1, 3)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_loaded_model_cannot_be_copied(model, copied):
    with pytest.raises(UsageError, match="cannot be pickled or copied") as caught:
        copied(model)

    assert "call gd.load in each process" in caught.value.hint


def test_a_free_batch_has_two_names():
    assert ExportConfig(targets=("onnx",), batch="dynamic").batch is None
    assert ExportConfig(targets=("onnx",), batch=None).batch is None
    assert ExportConfig(targets=("onnx",), max_drop=None).max_drop is None  # that of the task
    assert type(ExportConfig(targets=("onnx",), batch=np.int64(4)).batch) is int


@pytest.mark.parametrize("value", ["auto", "4", 0, 4097, True])
def test_another_batch_leads_to_the_free_one(value):
    with pytest.raises(UsageError, match="batch is") as caught:
        ExportConfig(targets=("onnx",), batch=value)

    assert "dynamic for any batch size" in caught.value.hint


@pytest.mark.parametrize(
    "field",
    [{"batch": "2"}, {"batch": 1.5}, {"max_drop": "x"}, {"timeout": "9"}, {"timeout": -1}],
    ids=str,
)
def test_numbers_of_an_export_are_numbers(field):
    with pytest.raises(UsageError, match=f"{next(iter(field)).replace('_', ' ')} is"):
        ExportConfig(targets=("onnx",), **field)


def test_numbers_of_models_are_numbers():
    with pytest.raises(UsageError, match="num_classes is '10'"):
        gd.create_model("ghostnet_050", num_classes="10")
    with pytest.raises(UsageError, match=r"ratio is 1\.5"):
        gd.ghostify(gd.create_model("ghost_vgg16"), ratio=1.5)


def test_an_empty_cache_is_none_and_writes_nothing_where_it_stands(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with gd.load(tiny_bundle("openvino"), cache="") as runtime:
        assert runtime.info()["cache"] == "off"

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["", None, 3], ids=repr)
def test_a_bundle_without_a_path_is_a_usage_error(given):
    for use in (gd.load, gd.verify):
        with pytest.raises(UsageError, match=r"bundle is .*, expected a path"):
            use(given)


@pytest.mark.parametrize("name", ["weights", "out", "data", "labels", "calibration"])
def test_an_empty_path_of_an_export_is_a_usage_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=f"{name} is '', expected a path"):
        gd.export("ghostnet_050", target="onnx", **{name: ""})

    assert list(tmp_path.iterdir()) == []


def test_an_image_without_a_path_is_told_so(model):
    with pytest.raises(InputError, match="the image path is empty"):
        model.classify("")


@pytest.mark.parametrize(
    "words",
    [
        ("verify", ""),
        ("inspect", ""),
        ("eval", ".", "--data", ""),
        ("export", "-t", "onnx", "--out", ""),
        ("export", "ghostnet_050", "-t", "onnx", "--weights", ""),
        ("export", "-t", "onnx", "--int8", "--calib", ""),
    ],
    ids=" ".join,
)
def test_an_unset_variable_of_the_shell_is_not_the_working_folder(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert_one_sentence(run(capsys, *words), 2, "the path is empty")

    assert list(tmp_path.iterdir()) == []

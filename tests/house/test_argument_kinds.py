"""Another kind of thing than a public function takes is one sentence, before any work."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
import torch

import ghostdeploy as gd
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import CheckpointError, DataError, InputError, UsageError

NET = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
IMAGE = np.zeros((1, 3, 8, 8), np.float32)


@pytest.mark.parametrize("empty", [np.zeros((0, 3, 8, 8), np.float32), torch.zeros(0, 3, 8, 8), np.zeros((1, 3, 0, 8))])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_fold_is_not_proven_on_no_image(empty, dynamic):
    with pytest.raises(InputError, match="holds no image to prove the fold on"):
        gd.fold(NET, empty, dynamic_batch=dynamic)


@pytest.mark.parametrize("example", [None, "cat.png", [IMAGE], {"x": IMAGE}, 3.0, np.array([None]), (IMAGE, None)])
def test_an_example_that_is_no_array_is_told(example):
    with pytest.raises(InputError, match=r"the example input is .*, expected a tensor or an array of numbers"):
        gd.fold(NET, example)


@pytest.mark.parametrize("passes", ["fold_batch_norm", 3, ("fold_batch_norm",), iter([])])
def test_what_is_no_list_of_passes_is_told(passes):
    with pytest.raises(UsageError, match=r"passes is .*, expected a "):
        gd.fold(NET, IMAGE, passes=passes)


@pytest.mark.parametrize("paths", [3, None, "", [3], [None]])
def test_what_is_no_path_of_a_bundle_is_told(paths):
    with pytest.raises(UsageError, match=r"bundle is .*, expected a path"):
        gd.evaluate(paths)


@pytest.mark.parametrize("data", ["", IMAGE, 3])
def test_what_is_no_path_of_images_is_told(data, tmp_path):
    with pytest.raises(UsageError, match=r"the image set is .*expected a path"):
        gd.evaluate(tmp_path, data=data)


@pytest.mark.parametrize("module", ["x", None, type(NET)])
def test_what_is_no_module_is_told(module):
    with pytest.raises(CheckpointError, match=r"expected a torch\.nn\.Module"):
        gd.fold(module, IMAGE)
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module"):
        gd.ghostify(module)


def test_an_example_of_another_byte_order_is_read():
    _, certificate = gd.fold(NET, IMAGE.astype(">f4"))

    assert certificate.max_relative_error <= 1e-9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("target", one) for one in (None, ["onnx"])],
        *[("precision", one) for one in (None, 8)],
        *[("out", one) for one in (None, 3)],
        *[("preprocess", one) for one in ("size=32", [32], None)],
        *[("calibration", one) for one in ([IMAGE], 3)],
        *[("data", one) for one in (IMAGE, 3)],
        *[("labels", one) for one in (["ant", "bee"], 3)],
        *[("skip_passes", one) for one in (None, "fold_batch_norm", (3,))],
        *[("sm", one) for one in (86, (86,))],
        ("name", 3),
        ("input", None),
        ("weights", 3),
    ],
)
def test_an_argument_of_export_is_named_with_what_was_given_and_expected(name, value, tmp_path):
    arguments = {"target": "onnx", "out": tmp_path} | {name: value}

    with pytest.raises(UsageError, match=rf"^(one of )?{name} is .*, expected "):
        gd.export(NET, **arguments)


@pytest.mark.parametrize(
    ("option", "hint"),
    [("image_size", 'preprocess={"size": …}'), ("mean", 'preprocess={"mean": …}'), ("calibrations", "calibration")],
)
def test_an_unknown_option_of_export_leads_to_the_known_one(option, hint, tmp_path):
    with pytest.raises(UsageError, match=f"unknown option '{option}'") as caught:
        gd.export(NET, target="onnx", out=tmp_path, **{option: 32})

    assert hint in caught.value.hint


def test_paths_of_a_configuration_may_be_text():
    config = ExportConfig(targets=("onnx",), labels="names.txt", data="images", calibration="more", out="build")

    assert all(isinstance(one, os.PathLike) for one in (config.labels, config.data, config.calibration, config.out))


def test_no_calibration_image_is_told(tmp_path):
    empty = np.zeros((0, 8, 8, 3), np.uint8)

    with pytest.raises(DataError, match="the calibration array holds no images"):
        gd.export(NET, target="onnx", precision="int8", calibration=empty, out=tmp_path, preprocess={"size": 8})


def test_a_preprocess_record_stands_for_all_its_fields(tmp_path):
    spec = gd.Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")

    assert gd.export(NET, target="onnx", preprocess=spec, out=tmp_path).manifest.preprocess == spec


@pytest.mark.parametrize("path", [["build/x"], b"build/x"])
@pytest.mark.parametrize("function", [gd.load, gd.verify])
def test_a_bundle_is_a_path(function, path):
    with pytest.raises(UsageError, match=r"bundle is .*, expected a path"):
        function(path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (partial(gd.create_model, None), "the model's name is None, expected text"),
        (partial(gd.create_model, 3), "the model's name is 3, expected text"),
        (partial(gd.list_models, None), "the pattern is None, expected text"),
    ],
    ids=range(3),
)
def test_arguments_of_the_zoo_are_named(call, words):
    with pytest.raises(UsageError) as caught:
        call()

    assert caught.value.message == words


def test_a_device_is_a_name(tiny_bundle):
    with pytest.raises(UsageError, match="device is 3, expected a name"):
        gd.load(tiny_bundle("onnx"), device=3)

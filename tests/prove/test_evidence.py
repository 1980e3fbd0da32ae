"""What judges an INT8 export did not calibrate it: held-out images, and sets that share images."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.deploy.intake.inputs import Inputs
from ghostdeploy.deploy.plan.preprocessing import apply_overrides
from ghostdeploy.deploy.prove.images import from_arrays, open_images
from ghostdeploy.deploy.quantize.apart import shared_with, without
from ghostdeploy.deploy.quantize.evidence import fitting, gather
from ghostdeploy.errors import DataError, UsageError
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.tasks.base import TaskInfo
from ghostdeploy.tasks.classify import Classify
from tests.runs import run_in

SPEC = Preprocess(size=32, crop_fraction=1.0, interpolation="bilinear")


class Corner:
    """A reference whose logits are the colour of one corner."""

    input_name = "input"

    def outputs(self, batch):
        return {"logits": self.logits(batch)}

    def logits(self, batch):
        return batch[:, :, 0, 0]


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def gathered(tmp_path, calibration, data=None, precision="int8"):
    inputs = Inputs((data or calibration).sample(16), data, calibration)
    (tmp_path / "work").mkdir(exist_ok=True)
    golden = {"logits": np.zeros((1, 3), np.float32)}
    return gather(
        inputs, SPEC, Corner(), run_in(tmp_path / "work", precision=precision), Classify(TaskInfo(), (32, 32)), golden
    )


def pixels_of(path):
    return {image.tobytes() for image in np.load(path)}


def folder_of(root, pixels, labels):
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / str(label) / f"{index}.png")
    return root


def test_without_labelled_images_the_gate_looks_at_images_that_did_not_calibrate(tmp_path):
    found = gathered(tmp_path, from_arrays(noise(200), source="photos"))

    assert not pixels_of(found.gate) & pixels_of(found.calibrated.path)
    assert (found.fingerprint.count, found.fingerprint.held_out) == (100, 100)
    assert found.gate_source == "photos, images held out from calibration"
    assert found.reference_outputs()["logits"].shape == (100, 3)


def test_large_outputs_are_judged_on_fewer_images():
    assert fitting({"logits": np.zeros((16, 1000), np.float32)}) == 1000
    assert fitting({"maps": np.zeros((2, 1 << 20), np.float32)}) == 64
    assert fitting({"maps": np.zeros((2, 1 << 17), np.float32)}) == 256


def test_hybrid_calibrates_nothing_so_that_all_images_judge(tmp_path):
    found = gathered(tmp_path, from_arrays(noise(120), source="photos"), precision="hybrid")

    assert len(found.reference_outputs()["logits"]) == 120
    assert found.gate_source == "photos"


@pytest.mark.parametrize("kind", ["folder", "arrays"])
def test_one_set_for_calibration_and_accuracy_is_split(kind, tmp_path, caplog):
    pixels, labels = noise(80), np.arange(80) % 4
    if kind == "folder":
        data = open_images(folder_of(tmp_path / "val", pixels, labels))
    else:
        data = from_arrays(pixels, labels, source="val.npz")

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        found = gathered(tmp_path, data, data)

    assert "40 of 80 images" in caplog.text
    assert len(found.data) == len(found.data.labels) == 40
    judging = {found.data.pixels(i, SPEC).tobytes() for i in range(40)}
    assert not judging & pixels_of(found.calibrated.path)
    assert pixels_of(found.gate) == judging
    label_of = {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    assert [label_of[found.data.pixels(i, SPEC).tobytes()] for i in range(40)] == found.data.labels.tolist()


def test_a_few_shared_images_stay_out_of_the_calibration_even_under_other_names(tmp_path, caplog):
    data = open_images(folder_of(tmp_path / "val", noise(30, seed=1), np.arange(30) % 3))
    folder_of(tmp_path / "photos", noise(140), np.zeros(140, int))
    for index, path in enumerate(data.images[:5]):
        shutil.copy(path, tmp_path / "photos/0" / f"copy{index}.png")

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        found = gathered(tmp_path, open_images(tmp_path / "photos/0"), data)

    assert "5 images of" in caplog.text
    assert found.data is data
    assert not pixels_of(found.gate) & pixels_of(found.calibrated.path)
    assert found.calibrated.count == 140


def test_sets_without_a_common_image_are_left_alone_and_without_a_word(tmp_path, caplog):
    data = from_arrays(noise(50, seed=1), np.arange(50) % 5, source="val")

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        found = gathered(tmp_path, from_arrays(noise(150), source="photos"), data)

    assert found.data is data
    assert found.fingerprint.held_out == 0
    assert caplog.text == ""


def test_labelled_images_that_all_calibrate_are_refused(tmp_path):
    pixels = noise(20)
    data = from_arrays(pixels[:1], np.array([0]), source="val")

    with pytest.raises(DataError, match="all 1 images of val are used for calibration, none is left") as caught:
        gathered(tmp_path, from_arrays(pixels, source="photos"), data)

    assert "--calib" in caught.value.hint


def test_equal_sizes_do_not_make_two_images_one(tmp_path):
    images = from_arrays(noise(4), np.arange(4), source="a")

    assert shared_with(images, noise(4, seed=9)).tolist() == [False] * 4
    flags = shared_with(images, [images.images[2].copy()])
    assert flags.tolist() == [False, False, True, False]
    rest = without(images, flags, "calibrates")
    assert rest.labels.tolist() == [0, 1, 3]
    assert [(record.reason, record.count) for record in rest.left_out] == [("calibrates", 1)]


def test_golden_images_of_zeros_and_ones_are_refused_in_every_precision():
    dark = from_arrays(noise(20) // 128, source="val.npz")

    with pytest.raises(DataError, match=r"val\.npz are between 0 and 1 of 255"):
        Inputs(dark.sample(16), None, None).look(SPEC)


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ({"mean": (123.675, 116.28, 103.53)}, "--mean 0.485,0.456,0.406"),
        ({"std": (58.395, 57.12, 57.375)}, "--std 0.229,0.224,0.225"),
        ({"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}, "--mean 0.5,0.5,0.5"),
        ({"mean": (-104.0, -117.0, -123.0)}, "--mean -0.4078,-0.4588,-0.4824"),
    ],
)
def test_mean_and_std_of_pixels_to_255_are_refused_with_the_values_to_give(given, cure):
    with pytest.raises(UsageError, match="scaled to 0 … 1") as caught:
        apply_overrides(SPEC, given)

    assert cure in caught.value.hint


@pytest.mark.parametrize(
    "given", [{"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}, {"mean": (0.5,) * 3}, {"std": (1.0,) * 3}]
)
def test_usual_values_are_taken(given):
    assert apply_overrides(SPEC, given)

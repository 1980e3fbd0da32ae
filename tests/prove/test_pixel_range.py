"""Pixels that cannot be what they are meant to be: the same is said of them by calibration, export, eval and tune."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from ghostdeploy.deploy.intake.inputs import Inputs
from ghostdeploy.deploy.prove import pixel_range
from ghostdeploy.deploy.prove.images import from_arrays
from ghostdeploy.deploy.quantize.calibration import select
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import Preprocess
from tests.bundles import CLASSES, make_bundle
from tests.commands import assert_one_sentence, run

SPEC = Preprocess(size=16, crop_fraction=1.0, interpolation="bilinear")
COUNT = 40


def noise(count=COUNT):
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


def plain():
    return np.broadcast_to(noise()[:, :1, :1], (COUNT, 16, 16, 3)).copy()


SETS = {"zeros and ones": noise() // 128, "zeros": noise() * 0, "gray": noise() // 16 + 100, "plain": plain()}
WORDS = {"gray": "are between 100 and 115 of 255", "plain": "every image of set.npz has a single colour"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), "onnx")


def archive(folder, images):
    np.savez(folder / "set.npz", images=images, labels=np.arange(len(images)) % CLASSES)
    return folder / "set.npz"


@pytest.mark.parametrize("kind", ["zeros and ones", "zeros"])
def test_eval_refuses_black_pixels_as_calibration_does(kind, bundle, tmp_path, capsys):
    answer = run(capsys, "eval", bundle, "--data", archive(tmp_path, SETS[kind]))

    brightest = 1 if kind == "zeros and ones" else 0
    assert_one_sentence(answer, 3, f"are between 0 and {brightest} of 255", "multiply them by 255")
    with pytest.raises(DataError) as caught:
        select(from_arrays(SETS["zeros and ones"], source="set.npz"), SPEC, folder=tmp_path)
    assert "are between 0 and 1 of 255" in caught.value.message


@pytest.mark.parametrize("kind", ["gray", "plain"])
def test_eval_says_what_makes_a_set_prove_little(kind, bundle, tmp_path, capsys):
    answer = run(capsys, "eval", bundle, "--data", archive(tmp_path, SETS[kind]), "--json")

    assert answer.code == 0
    assert WORDS[kind].replace("set.npz", str(tmp_path / "set.npz")) in json.dumps(answer.document[0]["notes"])
    assert "figures on it prove little" in answer.err


@pytest.mark.parametrize("kind", ["gray", "plain"])
def test_export_says_it_of_labelled_images_and_once_of_calibration_images(kind, tmp_path, caplog):
    images = from_arrays(SETS[kind], np.arange(COUNT) % CLASSES, source="set.npz")

    with caplog.at_level(logging.WARNING):
        Inputs(images.sample(16), None, images).look(SPEC)
        assert caplog.text == ""
        Inputs(images.sample(16), images, None).look(SPEC)
    assert WORDS[kind] in caplog.text

    assert any(WORDS[kind] in note for note in select(images, SPEC, folder=tmp_path).notes)


def test_a_set_that_begins_with_black_images_is_taken():
    images = np.concatenate([noise(400) * 0, noise(1)])

    assert pixel_range.look(from_arrays(images, source="set.npz"), SPEC) == ()


def test_typical_images_get_no_note():
    assert pixel_range.look(from_arrays(noise(), source="set.npz"), SPEC) == ()

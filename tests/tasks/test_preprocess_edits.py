"""Every edit of a manifest's preprocessing fails `verify`, whatever the task, by its pixels and not by its digest."""

from __future__ import annotations

import shutil

import msgspec
import pytest

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.preprocess import Preprocess
from tests.tasks.test_foreign_networks import NETWORKS, exported

EDITS = [
    {"size": (88, 64)},
    {"mean": (0.5, 0.5, 0.51)},
    {"std": (0.25, 0.25, 0.26)},
    {"resize": "stretch", "pad": 0.0},
    {"color": "bgr"},
    {"pad": 113},
    {"pad": 0.0, "pad_space": "normalized"},
    {"anchor": "corner"},
    {"upscale": False},
    {"rounding": "ceil"},
    {"interpolation": "bicubic"},
    {"sampling": "corner"},
    {"unit": "0-255"},
    {"layout": "nhwc"},
    {"dtype": "uint8"},
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Returns the float32 bundle of a network, made once."""
    made, root = {}, tmp_path_factory.mktemp("foreign")

    def make(name):
        if name not in made:
            made[name] = exported(name, "onnx", "fp32", root).path
        return made[name]

    return make


@pytest.mark.parametrize("name", NETWORKS)
def test_every_edit_of_preprocessing_fails_by_its_pixels(name, bundles, tmp_path):
    """The digest is right after each edit, so it is the pixels that find it."""
    path = bundles(name)
    passed = []
    for number, fields in enumerate(EDITS):
        copy = tmp_path / str(number)
        shutil.copytree(path, copy)
        manifest = open_bundle(copy).manifest
        spec = Preprocess(**msgspec.structs.asdict(manifest.preprocess) | fields)
        (copy / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, preprocess=spec)))
        found = gd.verify(copy)
        if found.verdict != "failed" or found.preprocessing.verdict != "failed":
            passed.append(fields)

    assert gd.verify(path).verdict == "passed"
    assert not passed

"""One image, one answer: Python, the C++ sample and the browser page read thirteen awkward files alike.

Decoders of JPEG may round a value by one; sixteen bits and CMYK are converted by formulas of their own in browsers.
"""

from __future__ import annotations

import subprocess

import msgspec
import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.arrays import read_arrays
from ghostdeploy.preprocess import to_pixels
from ghostdeploy.samples import cpp
from tests.browsing import served, visit
from tests.conftest import require_program
from tests.exported import sample_bundle
from tests.samples.images.make import HERE, SPECS, images
from tests.samples.test_browser_sample import modules  # noqa: F401 - a fixture
from tests.samples.test_cpp_sample import program, run  # noqa: F401 - a fixture

EXPECTED = read_arrays(HERE / "expected.npz")
BY_BROWSERS = {"cmyk.jpg": 0.1, "sixteen_bits.png": 0.01}
"""Largest difference of a probability, where it is not a thousandth."""


def assert_same_pixels(found, expected):
    """Decoders of other versions round a few values otherwise."""
    steps = np.abs(found.astype(int) - expected)
    assert found.shape == expected.shape
    assert steps.max() <= 2
    assert (steps == 0).mean() >= 0.99


@pytest.mark.parametrize("name", SPECS)
def test_python_gives_the_recorded_pixels(name):
    assert len(images()) == 13
    assert_same_pixels(np.stack([to_pixels(path, SPECS[name]) for path in images()]), EXPECTED[name])


def test_the_eight_orientations_show_one_picture():
    turned = [index for index, path in enumerate(images()) if path.stem.startswith("exif")]

    for name in SPECS:
        pixels = EXPECTED[name][turned].astype(int)
        assert np.abs(pixels - pixels[0]).mean() < 2, name


def test_cpp_gives_the_recorded_pixels(tmp_path):
    compiler = require_program("g++")
    source = cpp.compiler_arguments()[0]
    folder = source.rpartition("/")[0]
    command = [compiler, "-std=c++17", "-O2", "-I", folder, HERE / "pixels.cpp", "-ljpeg", "-lpng"]
    done = subprocess.run([*command, "-o", tmp_path / "pixels"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, spec in SPECS.items():
        (tmp_path / "spec.json").write_bytes(msgspec.json.encode(spec))

        made = subprocess.run([tmp_path / "pixels", tmp_path / "spec.json", *images()], capture_output=True, check=True)

        assert_same_pixels(np.frombuffer(made.stdout, np.uint8).reshape(EXPECTED[name].shape), EXPECTED[name])


def test_the_cpp_program_gives_the_classes_of_python(program, tmp_path_factory, tmp_path):  # noqa: F811
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "openvino", precision="fp32")
    (tmp_path / "text.png").write_text("no image")

    done = run(program, path, *images(), tmp_path / "text.png")

    with gd.load(path) as model:
        expected = [model.classify(image, k=1)[0] for image in images()]
    lines = [line.rpartition(": ")[2].rpartition(" ") for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert "text.png is no JPEG or PNG file" in done.stderr
    assert [label for label, _, _ in lines] == [label for label, _ in expected]
    assert [float(p) for _, _, p in lines] == pytest.approx([p for _, p in expected], abs=2e-3)


def test_the_browser_gives_the_classes_of_python(modules, tmp_path_factory, tmp_path):  # noqa: F811
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision="fp32")
    with gd.load(path) as model, served(path, modules, images()) as address:
        for image in images():
            page = visit(f"{address}/?example={image.name}", tmp_path)
            expected = dict(model.classify(image, k=10))
            assert page.attributes["result"]["data-file"] == image.name, page.text
            found = {label: expected[label] - p for label, p in page.classes}
            assert max(map(abs, found.values())) <= BY_BROWSERS.get(image.name, 1e-3), (image.name, found)

"""What `classify` gives the engine is what torchvision's Resize, CenterCrop, ToTensor and Normalize give.

The stored arrays are torchvision's own, see `tests/transforms/torchvision_transforms.py`; it is not needed here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.preprocess import Preprocess, prepare
from tests.means import Means
from tests.transforms.torchvision_transforms import SHAPES, SPECS

FILE = Path(__file__).parents[1] / "transforms" / "torchvision_transforms.npz"
CASES = [
    pytest.param(how, index, f"{height}x{width}", id=f"{how}-{SPECS[index]['size']}-{height}x{width}")
    for how in ("bilinear", "bicubic")
    for index in range(len(SPECS))
    for height, width in SHAPES
]


@pytest.fixture(scope="module")
def stored():
    with np.load(FILE, allow_pickle=False) as file:
        return dict(file)


def difference(ours, theirs, spec):
    """Returns the largest difference of a channel on the scale of pixels, 0 to 1."""
    std = np.asarray(spec.std, np.float64).reshape(3, 1, 1)
    return np.abs((ours.astype(np.float64) - theirs) * std).max()


@pytest.mark.parametrize(("how", "index", "shape"), CASES)
def test_classify_gives_the_engine_what_torchvision_gives(stored, tmp_path, how, index, shape):
    spec = Preprocess(**SPECS[index], interpolation=how)
    image, theirs = stored[f"image {shape}"], stored[f"{how} {index} {shape}"]
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(image).save(tmp_path / "image.webp", lossless=True)
    seen = []
    inputs = (TensorSpec(name="x", dtype="float32", shape=(None, 3, spec.size, spec.size), layout="nchw"),)

    with Means(preprocess=spec, inputs=inputs, before=lambda given: seen.append(given["x"][0].copy())) as runtime:
        for source in (tmp_path / "image.png", tmp_path / "image.webp", Image.fromarray(image), image):
            runtime.classify(source)

    assert [difference(ours, theirs, spec) <= 1 / 255 for ours in seen] == [True] * 4


@pytest.mark.parametrize(("how", "index", "shape"), CASES)
def test_channels_last_floats_are_the_same_numbers(stored, how, index, shape):
    spec = Preprocess(**SPECS[index], interpolation=how, layout="nhwc", dtype="float32")

    ours = prepare([stored[f"image {shape}"]], spec)[0].transpose(2, 0, 1)

    assert difference(ours, stored[f"{how} {index} {shape}"], spec) <= 1 / 255


def test_the_references_cover_both_interpolations_and_every_shape(stored):
    assert len(stored) == len(SHAPES) * (1 + 2 * len(SPECS))
    assert all(np.isfinite(array).all() for array in stored.values())

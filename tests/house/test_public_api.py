"""The public names are a list, and the list is what there is."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import ghostdeploy as gd

ROOT = Path(__file__).parents[2]


def test_the_public_names_are_exactly_these():
    assert gd.__all__ == [
        "Bundle",
        "GhostDeployError",
        "Preprocess",
        "Runtime",
        "Trust",
        "create_model",
        "errors",
        "evaluate",
        "export",
        "fold",
        "ghostify",
        "list_models",
        "load",
        "verify",
    ]


@pytest.mark.parametrize("name", gd.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    assert getattr(gd, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="exprot"):
        gd.exprot  # noqa: B018 - reading it is the test


def test_the_version_is_the_newest_heading_of_the_changelog():
    heading = re.search(r"^## \[?([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert heading[1] == gd.__version__ == version("ghostdeploy")


def test_evaluate_takes_one_bundle_or_several(tiny_bundle, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(8))
    path = tiny_bundle("onnx")

    (one,) = gd.evaluate(path, data=tmp_path / "set.npz")
    (text,) = gd.evaluate(str(path), data=tmp_path / "set.npz")
    (listed,) = gd.evaluate([path], data=tmp_path / "set.npz")

    assert (one, text) == (listed, listed)
    assert one.count == 8

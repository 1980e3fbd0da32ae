"""`eval --max-drop` is a gate: it needs something to compare with, and what misses it is exit 1."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.errors import UsageError
from ghostdeploy.statistics import paired_drop
from tests.commands import assert_one_sentence, run
from tests.signing import sign_again


@pytest.fixture
def two(tiny_bundle, tmp_path):
    """Folders of a good bundle and of one whose classes are all wrong, and images that the good one names rightly."""
    good = tiny_bundle("onnx")
    pixels = np.random.default_rng(3).integers(0, 256, (40, 20, 20, 3), np.uint8)
    with gd.load(good) as model:
        names = [model.classify(image, k=1)[0][0] for image in pixels]
    labels = np.array([int(name.removeprefix("class ")) for name in names])
    np.savez(tmp_path / "set.npz", images=pixels, labels=labels)
    bad = shutil.copytree(good, tmp_path / "bad")
    _shift_classes(bad)
    return bad, good, tmp_path / "set.npz"


def _shift_classes(folder):
    import onnx

    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name in ("classifier", "bias"):
            values = np.roll(onnx.numpy_helper.to_array(tensor), 1, axis=0)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    sign_again(folder)


def test_a_drop_beyond_the_limit_is_a_missed_gate(two, capsys):
    bad, good, data = two
    words = ("eval", bad, "--data", data, "--reference", good)

    shown, gated = run(capsys, *words), run(capsys, *words, "--max-drop", 0.01)
    document = run(capsys, *words, "--max-drop", 0.01, "--json").document[0]

    assert (shown.code, gated.code) == (0, 1)
    assert "exceeded: 1" in gated.out
    assert "failed: top-1 drops by 100.00 points, 1.00 allowed" in " ".join(gated.out.split())
    assert document["verdict"] == "failed"
    assert document["comparison"]["drop_ci95"][1] <= 1


def test_a_drop_within_the_limit_passes(two, capsys):
    bad, good, data = two

    assert run(capsys, "eval", bad, "--data", data, "--reference", good, "--max-drop", 1).code == 0
    assert run(capsys, "eval", good, bad, "--data", data, "--reference", good, "--max-drop", 0.5).code == 1


def test_a_limit_without_a_reference_is_refused(two, capsys):
    bad, good, data = two

    assert_one_sentence(
        run(capsys, "eval", bad, "--data", data, "--max-drop", 0.01),
        2,
        "max drop 0.01 needs a reference",
        "--reference",
    )
    for reference in (good, good / ".", f"{good}/../{good.name}"):
        answer = run(capsys, "eval", good, "--data", data, "--reference", reference, "--max-drop", 0)
        assert_one_sentence(answer, 2, "compared with itself")


@pytest.mark.parametrize("limit", ["x", -0.1, 1.5, float("nan"), True], ids=repr)
def test_a_limit_is_a_share(two, limit):
    bad, good, data = two

    with pytest.raises(UsageError, match="max drop is"):
        gd.evaluate(bad, data=data, reference=good, max_drop=limit)


def test_no_bundle_is_told(two):
    with pytest.raises(UsageError, match="no bundle"):
        gd.evaluate([], data=two[2])


def test_the_interval_of_a_drop_ends_at_all_images():
    assert paired_drop(120, 0, 120)[1] == 1
    assert paired_drop(0, 120, 120)[0] == -1

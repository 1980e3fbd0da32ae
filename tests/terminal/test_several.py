"""Commands over several arguments: the good ones' results are printed, each bad one is named, the exit code is 3."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.commands import assert_one_sentence, run

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)


@pytest.fixture
def images(tmp_path):
    """Two good images with a damaged one between them."""
    paths = [tmp_path / name for name in ("first.png", "damaged.png", "last.png")]
    for path in paths:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    return paths


@pytest.fixture
def folders(tiny_bundle, tmp_path):
    """Two good bundles with an altered one between them."""
    paths = [tmp_path / name for name in ("first", "altered", "last")]
    for path in paths:
        shutil.copytree(tiny_bundle("onnx"), path)
    payload = paths[1] / "model.onnx"
    payload.write_bytes(payload.read_bytes()[:-1] + b"x")
    return paths


def test_good_images_around_a_bad_one_are_classified(tiny_bundle, images, capsys):
    answer = run(capsys, "run", tiny_bundle("onnx"), *images)

    assert_one_sentence(answer, 3, "damaged.png")
    assert answer.out.index("first.png") < answer.out.index("last.png")
    assert "damaged.png" not in answer.out


def test_their_json_list_has_an_entry_for_each_image_in_order(tiny_bundle, images, capsys):
    answer = run(capsys, "run", tiny_bundle("onnx"), *images, images[0], "--json")

    first, bad, last, again = answer.document
    assert answer.code == 3
    assert [one["image"] for one in answer.document] == [str(path) for path in (*images, images[0])]
    assert len(first["classes"]) == len(last["classes"]) == 5
    assert again == first
    assert bad["classes"] == []
    assert bad["exit_code"] == 3
    assert bad["error"]["kind"] == "InputError"
    assert "damaged.png" in bad["error"]["message"]


def test_one_bad_image_alone_is_the_commands_error(tiny_bundle, images, capsys):
    answer = run(capsys, "run", tiny_bundle("onnx"), images[1], "--json")

    assert answer.code == answer.document["exit_code"] == 3


@pytest.mark.parametrize("command", ["verify", "inspect", "eval"])
def test_good_bundles_around_a_bad_one_keep_their_results(command, folders, capsys, tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=np.arange(8))
    more = ["--data", tmp_path / "set.npz"] if command == "eval" else []

    answer = run(capsys, command, *folders, *more)
    listed = run(capsys, command, *folders, *more, "--json")

    assert_one_sentence(answer, 3, "altered")
    assert answer.out.count("tiny-onnx-fp32") >= 2 or answer.out.count("first") + answer.out.count("last") == 2
    key = "path" if command == "inspect" else "bundle"
    assert [one[key] for one in listed.document] == [str(path) for path in folders]
    assert ["error" in one for one in listed.document] == [False, True, False]
    assert listed.document[1]["exit_code"] == listed.code == 3


def test_a_bundle_that_could_not_be_verified_is_not_passed(folders, capsys):
    verdicts = [one["verdict"] for one in run(capsys, "verify", *folders, "--json").document]

    assert verdicts == ["passed", "failed", "passed"]


def test_every_bad_bundle_is_named(folders, capsys, tmp_path):
    answer = run(capsys, "verify", tmp_path / "absent", folders[0], folders[1])

    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert answer.code == 3
    assert ["absent" in errors[0], "altered" in errors[1], len(errors)] == [True, True, 2]


def test_the_traceback_of_each_is_shown_when_asked_for(folders, capsys, tmp_path):
    answer = run(capsys, "verify", tmp_path / "absent", folders[1], "-v")

    assert answer.err.count("Traceback (most recent call last)") >= 2  # the causes have their own


def test_inspect_of_one_bundle_stays_one_document(folders, capsys):
    assert run(capsys, "inspect", folders[0], "--json").document["path"] == str(folders[0])

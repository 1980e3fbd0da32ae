"""The priors of an SSD head: numbers of the bundle, held against the network, shown by a dry run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.errors import BundleError
from tests.commands import assert_one_sentence, run
from tests.tasks import test_foreign_networks as foreign
from tests.tasks.test_foreign_networks import CLASSES, SIZE, exported, priors

COMMAND = ("export", f"{foreign.__file__}:Ssd", "-t", "onnx", "--task", "detect", "--image-size", "{},{}".format(*SIZE))


def test_priors_are_numbers_of_the_bundle_and_others_are_refused(tmp_path):
    bundle = exported("ssd", "onnx", "fp32", tmp_path)
    (tmp_path / "priors.npy").unlink()  # the bundle needs no file of ours
    wanted = priors()

    np.testing.assert_array_equal(np.asarray(bundle.manifest.task.decode["priors"], np.float32), wanted)
    path = bundle.path / "manifest.json"
    record = json.loads(path.read_text("utf-8"))
    record["task"]["decode"]["priors"][3][0] += 0.01
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(BundleError, match="digest"):
        gd.load(bundle.path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"0.1 0.2", "is no NumPy array"),
        (np.zeros((3, 5)), "are float64 (3, 5), expected numbers of shape (P, 4)"),
        (np.full((3, 4), 30.0), "reach 30, expected shares of the input and not pixels"),
        (np.full((3, 4), -0.5), "prior 0 of"),
        (np.full((3, 4), np.nan), "hold NaN or infinite values"),
        (np.full((3, 4), 0.5), "points, expected 3 as there are priors"),
    ],
    ids=["missing", "text", "columns", "pixels", "negative", "nan", "few"],
)
def test_wrong_priors_are_refused_in_one_sentence(content, words, tmp_path, capsys):
    path = tmp_path / "p.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    decode = f"ssd:outputs=cls_logits/bbox_regression,priors={path}"

    answer = run(capsys, *COMMAND, "--decode", decode, "--dry-run", "-o", tmp_path)

    assert_one_sentence(answer, 3, words)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_dry_run_prints_the_finished_decode_record(as_json, tmp_path, capsys):
    np.save(tmp_path / "p.npy", priors())
    decode = f"ssd:outputs=cls_logits/bbox_regression,priors={tmp_path / 'p.npy'},predict.iou=0.4"

    answer = run(capsys, *COMMAND, "--decode", decode, "--dry-run", "-o", tmp_path, *["--json"] * as_json)

    assert answer.code == 0, answer.err
    if as_json:
        record = json.loads(answer.out)["decode"]
        assert (record["kind"], record["classes"], record["variances"]) == ("ssd", CLASSES + 1, [0.1, 0.1, 0.2, 0.2])
        np.testing.assert_array_equal(np.asarray(record["priors"], np.float32), priors())
        assert record["predict"]["iou"] == 0.4
    else:
        for words in ("kind ssd", "classes 5", "layout npc", "background first", f"priors {len(priors())} of [", "0.4"):
            assert words in answer.out

"""What a report is made of: bundles, receipts and folders of both; bad input is one sentence and an exit code."""

from __future__ import annotations

import json
import shutil

import pytest

from ghostdeploy.deploy.report.make import make_report
from ghostdeploy.deploy.report.sources import find
from tests.bundles import make_bundle
from tests.commands import assert_one_sentence, run


def test_a_folder_gives_its_bundles_and_receipts(proven):
    found = find([proven])

    assert [bundle.manifest.name for bundle in found.bundles] == ["tiny-onnx-fp32", "tiny-onnx-int8"]
    assert [one.receipt.bundle.name for one in found.proven] == ["tiny-onnx-fp32", "tiny-onnx-int8"]


def test_what_is_named_twice_is_there_once(proven):
    found = find([proven, proven / "tiny-onnx-fp32", proven / "home.json"])

    assert len(found.bundles) == 2
    assert len(found.proven) == 2


def test_a_receipt_alone_finds_its_bundles(proven):
    assert len(find([proven / "home.json"]).bundles) == 2


def test_json_that_is_no_receipt_is_left_alone(proven):
    (proven / "results.json").write_text("{}")

    assert len(find([proven]).proven) == 2


def test_folders_below_are_looked_through_and_links_are_not(proven, tmp_path):
    deep = tmp_path / "deep"
    (deep / "one").mkdir(parents=True)
    shutil.move(proven / "tiny-onnx-fp32", deep / "one" / "tiny-onnx-fp32")
    (deep / "link").symlink_to(proven)

    assert [bundle.manifest.name for bundle in find([deep]).bundles] == ["tiny-onnx-fp32"]


def test_bundles_of_different_models_are_grouped(proven, trained, tmp_path):
    report = make_report([proven, trained[0]], tmp_path / "r.html")

    assert [model.name for model in report.models] == ["tiny", "ghostnet_050"]
    assert [one.key for model in report.models for one in model.bundles] == ["A", "B", "C"]


def test_a_folder_without_bundles_is_refused(capsys, tmp_path):
    (tmp_path / "empty").mkdir()

    answer = run(capsys, "report", tmp_path / "empty", "-o", tmp_path / "r.html")

    assert_one_sentence(answer, 3, "holds no bundle and no receipt", "ghostdeploy export")
    assert not (tmp_path / "r.html").exists()


def test_what_is_not_there_is_refused(capsys, tmp_path):
    assert_one_sentence(run(capsys, "report", tmp_path / "absent", "-o", tmp_path / "r.html"), 3, "does not exist")


def test_a_damaged_bundle_is_refused(capsys, proven, tmp_path):
    payload = proven / "tiny-onnx-fp32" / "model.onnx"
    data = bytearray(payload.read_bytes())
    data[-1] ^= 1
    payload.write_bytes(data)

    answer = run(capsys, "report", proven, "-o", tmp_path / "r.html")

    assert_one_sentence(answer, 3, "model.onnx was altered")


def test_a_receipt_of_another_bundle_is_refused(capsys, proven, tmp_path):
    other = make_bundle(tmp_path / "other", "onnx", precision="int8")
    shutil.rmtree(proven / "tiny-onnx-int8")
    manifest = json.loads((other / "manifest.json").read_text())
    assert manifest["digest"]

    answer = run(capsys, "report", proven / "home.json", proven / "tiny-onnx-fp32", "-o", tmp_path / "r.html")

    assert_one_sentence(answer, 3, "home.json is about a bundle tiny-onnx-int8", "not among those given")


def test_a_damaged_receipt_is_refused(capsys, proven, tmp_path):
    text = (proven / "home.json").read_text()
    (proven / "home.json").write_text(text.replace('"verdict": "passed"', '"verdict": "failed"', 1))

    assert_one_sentence(run(capsys, "report", proven, "-o", tmp_path / "r.html"), 3, "home.json was altered")


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_receipt_is_refused(capsys, tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)

    assert_one_sentence(run(capsys, "report", tmp_path / "x.json", "-o", tmp_path / "r.html"), 3, "is not a receipt")


def test_a_file_that_exists_is_kept(capsys, proven, tmp_path):
    page = tmp_path / "r.html"
    page.write_text("mine")

    assert_one_sentence(run(capsys, "report", proven, "-o", page), 2, "exists already", "--force")
    assert page.read_text() == "mine"
    assert run(capsys, "report", proven, "-o", page, "--force").code == 0
    assert page.read_text().startswith("<!doctype html>")


def test_a_folder_in_place_of_the_page_is_refused(capsys, proven, tmp_path):
    assert_one_sentence(run(capsys, "report", proven, "-o", tmp_path, "--force"), 2, "is a folder")


def test_a_place_that_cannot_be_written_leaves_nothing(capsys, proven, tmp_path):
    (tmp_path / "file").write_text("")

    answer = run(capsys, "report", proven, "-o", tmp_path / "file" / "r.html")

    assert_one_sentence(answer, 4, "cannot be written")


def test_a_set_that_is_not_the_models_is_refused(capsys, proven, tmp_path):
    answer = run(capsys, "report", proven, "--data", tmp_path / "absent", "-o", tmp_path / "r.html")

    assert_one_sentence(answer, 3, "absent does not exist")

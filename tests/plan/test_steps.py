"""Which converters run for which targets, and which rewrites their program has had."""

from __future__ import annotations

import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.fold.passes import FORMS, REWRITES, base_name, named_passes
from ghostdeploy.deploy.plan.steps import all_steps, program_file, steps_to
from tests.commands import assert_one_sentence, run


def rows(*names):
    return [targets.find(name) for name in names]


def test_targets_of_the_same_rewrites_share_their_first_step():
    steps = all_steps(rows("onnx", "openvino", "tensorrt"), "fp32", skip=REWRITES)

    assert list(steps) == ["onnx", "openvino", "tensorrt"]
    assert steps["openvino"].source == steps["tensorrt"].source == steps["onnx"].result


def test_a_target_of_other_rewrites_gets_a_first_step_of_its_own():
    steps = all_steps(rows("onnx", "openvino", "tensorrt"), "fp32")

    assert list(steps) == ["onnx", "onnx-for-openvino", "openvino", "onnx-for-tensorrt", "tensorrt"]
    assert steps["onnx"].rewrites == ("DepthwiseConcat-8", "SplitConcat-8", "SplitSlices", "VectorLayers")
    assert steps["onnx-for-openvino"].rewrites == REWRITES
    assert steps["openvino"].source == steps["onnx-for-openvino"].result
    assert steps["onnx-for-tensorrt"].source == "program.pt2"
    assert steps["tensorrt"].source == steps["onnx-for-tensorrt"].result


@pytest.mark.parametrize("row", targets.TARGETS.values(), ids=lambda row: row.name)
def test_quantizers_and_finished_files_start_from_the_plain_graph(row):
    first = steps_to(row, "int8")[0]
    assert first.rewrites == targets.chain(row)[0].forms
    assert first.source == program_file(None, first.rewrites)
    assert steps_to(row, "int8", skip=FORMS)[0].source == "program.pt2"
    if targets.takes(row, targets.find("onnx")):
        assert steps_to(row, "fp32", targets.find("onnx"))[0].source == "program.onnx"


def test_passes_that_are_skipped_are_not_in_the_program():
    first = steps_to(targets.find("openvino"), "hybrid", skip=["DepthwiseConcat", "SplitConcat", "SplitSlices"])[0]

    assert first.rewrites == ("VectorLayers",)
    assert first.source == program_file(None, ("VectorLayers",)) == "program-VectorLayers.pt2"
    assert steps_to(targets.find("openvino"), "fp32", skip=REWRITES)[0].source == "program.pt2"


def test_every_row_names_passes_that_exist():
    for row in targets.TARGETS.values():
        assert [step.name for step in named_passes(row.rewrites)] == [base_name(name) for name in row.rewrites]
        assert {base_name(name) for name in row.rewrites} <= set(REWRITES)
        assert set(row.forms) <= set(FORMS)
        assert not row.forms or row.parent is None


def test_an_unknown_pass_is_a_usage_error_with_a_suggestion(capsys):
    answer = run(capsys, "export", "-t", "onnx", "--skip-pass", "VectorLayer", "--dry-run")

    assert_one_sentence(answer, 2, "VectorLayer", "did you mean", "VectorLayers")


def test_a_finished_file_has_other_passes(capsys, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    answer = run(capsys, "export", str(tmp_path / "model.onnx"), "-t", "onnx", "--skip-pass", "VectorLayers")

    assert_one_sentence(answer, 2, "--skip-pass", "PyTorch model")


@pytest.mark.slow
def test_the_manifest_lists_what_was_done_for_each_target(tmp_path, capsys):
    options = ("--skip-pass", "SplitSlices", "-o", str(tmp_path), "--json")
    answer = run(capsys, "export", "-t", "onnx", "-t", "tensorrt", *options)
    assert answer.code == 0

    names = {
        target: [one.name for one in open_bundle(tmp_path / f"ghostnet_050-{target}-fp32").manifest.passes]
        for target in ("onnx", "tensorrt")
    }
    assert names["onnx"][-2:] == ["SplitConcat", "VectorLayers"]
    assert not set(REWRITES) & set(names["tensorrt"])
    assert gd.verify(tmp_path / "ghostnet_050-onnx-fp32").verdict == "passed"

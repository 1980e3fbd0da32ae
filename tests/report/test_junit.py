"""`--junit`: what `verify` and `eval` found as test results, whatever happened."""

from __future__ import annotations

from xml.etree import ElementTree

from ghostdeploy import samples
from tests.commands import assert_one_sentence, run


def _cases(file):
    root = ElementTree.parse(file).getroot()
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    for suite in root.iter("testsuite"):
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(plural)) == sum(case.find(kind) is not None for case in suite)
    return cases


def test_every_gate_of_a_bundle_is_a_case(capsys, proven, tmp_path):
    bundle = proven / "tiny-onnx-int8"

    answer = run(capsys, "verify", bundle, "--junit", tmp_path / "r.xml")

    cases = _cases(tmp_path / "r.xml")
    assert answer.code == 0
    assert {name for _, name in cases} >= {"parity", "execution", "replay of logits", "verdict"}
    assert '"cosine"' in cases[str(bundle), "parity"].find("system-out").text


def test_a_missed_gate_is_a_failure(capsys, trained, tmp_path):
    answer = run(capsys, "verify", *trained[1:], "--junit", tmp_path / "r.xml")

    cases = _cases(tmp_path / "r.xml")
    assert answer.code == 1
    assert cases[str(trained[1]), "verdict"].find("failure") is None
    assert "golden" in cases[str(trained[2]), "verdict"].find("failure").get("message")


def test_a_damaged_bundle_is_an_error_beside_the_good_one(capsys, proven, tmp_path):
    (proven / "tiny-onnx-fp32" / "model.onnx").unlink()

    answer = run(capsys, "verify", proven / "tiny-onnx-fp32", proven / "tiny-onnx-int8", "--junit", tmp_path / "r.xml")

    cases = _cases(tmp_path / "r.xml")
    assert answer.code == 3
    assert "is missing" in cases[str(proven / "tiny-onnx-fp32"), "bundle"].find("error").get("message")
    assert cases[str(proven / "tiny-onnx-int8"), "verdict"].find("failure") is None


def test_results_are_written_where_the_command_ends_with_an_error(capsys, tmp_path):
    assert run(capsys, "verify", tmp_path / "absent", "--junit", tmp_path / "r.xml").code == 3

    (case,) = _cases(tmp_path / "r.xml").values()
    assert "does not exist" in case.find("error").get("message")


def test_receipts_are_results_too(capsys, proven, tmp_path):
    assert run(capsys, "verify", proven / "home.json", "--junit", tmp_path / "r.xml").code == 0

    assert [name for _, name in _cases(tmp_path / "r.xml")] == ["verdict"]


def test_a_drop_beyond_the_limit_is_a_failure(capsys, trained, tmp_path):
    floating, _, broken = trained
    data = ["--data", samples.evaluation_set()]

    answer = run(
        capsys, "eval", broken, *data, "--reference", floating, "--max-drop", 0.01, "--junit", tmp_path / "r.xml"
    )

    cases = _cases(tmp_path / "r.xml")
    assert answer.code == 1
    assert "top-1 drops" in cases[str(broken), "verdict"].find("failure").get("message")


def test_a_file_that_cannot_be_written_is_an_error(capsys, proven, tmp_path):
    answer = run(capsys, "verify", proven / "tiny-onnx-fp32", "--junit", tmp_path / "absent" / "r.xml")

    assert_one_sentence(answer, 4, "r.xml cannot be written")

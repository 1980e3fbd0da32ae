"""Live diagnoses on the page, from files or made by --diagnose: a wrong block comes first, and the check is exact."""

from __future__ import annotations

import json
import shutil

import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.deploy.report import held, markdown
from ghostdeploy.deploy.report.make import make_report
from ghostdeploy.deploy.report.page import render
from ghostdeploy.deploy.report.sources import find
from tests.commands import assert_one_sentence, run
from tests.planted import plant
from tests.report.conftest import record_of


@pytest.fixture
def evidence(tiny, tmp_path):
    """A folder with the tiny float bundle, and an INT8 one with a wrong layer whose manifest says passed."""
    folder = tmp_path / "evidence"
    shutil.copytree(tiny / "tiny-onnx-fp32", folder / "tiny-onnx-fp32")
    plant(tiny / "tiny-onnx-int8", folder / "tiny-onnx-int8", "depthwise", "permuted")
    return folder


def diagnose(capsys, folder, *more):
    """Writes what `diagnose --json` prints of the INT8 bundle; returns the file."""
    answer = run(capsys, "diagnose", folder / "tiny-onnx-int8", *more, "--json")
    file = folder / "diagnosis.json"
    file.write_text(answer.out, "utf-8")
    return file


def shown(page):
    """Returns the first section as text."""
    return page[page.index("<main>") : page.index("Provenance and hashes</h3>")]


def test_the_file_beside_names_the_wrong_block_first(evidence, capsys, tmp_path):
    diagnose(capsys, evidence)
    assert open_bundle(evidence / "tiny-onnx-int8").manifest.verdict == "passed"

    report = make_report([evidence], tmp_path / "r.html")

    said = shown(render(report, "r.html"))
    assert report.verdict == "failed"
    assert said.index("Broken block") < said.index("tiny-onnx-fp32")
    assert '<strong class="mono">depthwise</strong>' in said
    assert "--force" in said
    assert "Failed: B tiny-onnx-int8" in said


def test_introduced_and_arriving_of_every_block_are_on_the_page(evidence, capsys, tmp_path):
    live = json.loads(diagnose(capsys, evidence).read_text())["live"]

    page = render(make_report([evidence], tmp_path / "r.html"), "r.html")

    for place, block in enumerate(live["blocks"]):
        for name in ("introduced_db", "arriving_db"):
            if block[name] is not None:
                assert f'data-json="models.0.bundles.1.held.0.live.blocks.{place}.{name}"' in page
    assert page.count("<td>wrong</td>") == 1


def test_report_runs_the_bundles_and_keeps_what_it_found_beside_the_page(evidence, capsys, tmp_path):
    page = tmp_path / "r.html"

    answer = run(capsys, "report", evidence, "--diagnose", "-o", page)

    assert answer.code == 0, answer.err
    assert "depthwise (wrong)" in answer.out
    assert sorted(one.name for one in tmp_path.glob("r-*.json")) == ["r-1-tiny-onnx-int8.json"]
    assert "no live diagnosis of tiny-onnx-fp32" in " ".join((answer.out + answer.err).split())
    assert_one_sentence(run(capsys, "report", evidence, "--diagnose", "-o", page), 2, "exists already", "--force")
    assert run(capsys, "report", evidence, "--diagnose", "-o", page, "--force").code == 0


def test_the_check_reads_the_diagnosis_again(evidence, capsys, tmp_path):
    page, file = tmp_path / "r.html", diagnose(capsys, evidence)
    assert run(capsys, "report", evidence, file, "-o", page).code == 0

    same = run(capsys, "report", page, "--check", "--json")
    document = json.loads(file.read_text())
    document["live"]["blocks"][0]["introduced_db"] = 99.0
    file.write_text(json.dumps(document))
    other = run(capsys, "report", page, "--check", "--json")

    assert (same.code, same.document["differences"], same.document["not_compared"]) == (0, [], [])
    assert other.code == 1
    assert other.document["differences"] == [
        f"models.0.bundles.1.held.0.live.blocks.0.introduced_db is "
        f"{record_of(page).models[0].bundles[1].held[0].live.blocks[0].introduced_db} in the report, 99.0 in the files"
    ]


def test_markdown_names_the_wrong_block(evidence, capsys, tmp_path):
    diagnose(capsys, evidence)

    said = markdown.render(make_report([evidence], tmp_path / "r.html"))

    assert "broken block `depthwise`" in said
    assert said.count("❌ failed") == 1


def test_a_sound_diagnosis_fails_nothing(tiny, capsys, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "sound")
    diagnose(capsys, folder)

    report = make_report([folder], tmp_path / "r.html")

    assert report.verdict != "failed"
    assert "Broken block" not in render(report, "r.html")


def test_a_diagnosis_alone_finds_its_bundle(evidence, capsys):
    found = find([diagnose(capsys, evidence)])

    assert [one.manifest.name for one in found.bundles] == ["tiny-onnx-int8"]
    assert [one.number for one in found.looked] == [0]


def test_several_devices_stand_in_one_file(evidence, capsys, tmp_path):
    """As `diagnose --on A --on B --json` prints them: an entry each, of one that failed its error."""
    file = diagnose(capsys, evidence)
    entry = json.loads(file.read_text())
    entry["live"]["there"] = {"where": "ssh://pi", "engine": "onnxruntime 1.20.0", "same_bundle": True}
    file.write_text(json.dumps([entry, {"error": {"message": "lost"}, "exit_code": 4}]))

    report = make_report([evidence], tmp_path / "r.html")

    (one,) = report.models[0].bundles[1].held
    assert one.live.there.where == "ssh://pi"
    assert "by onnxruntime 1.20.0" in render(report, "r.html")


def test_what_holds_nothing_live_is_left_alone(evidence, capsys, tmp_path):
    diagnose(capsys, evidence, "--recorded")

    assert make_report([evidence], tmp_path / "r.html").verdict != "failed"


def test_a_diagnosis_of_an_earlier_bundle_is_refused(evidence, capsys):
    file = diagnose(capsys, evidence)
    path = evidence / "tiny-onnx-int8" / "manifest.json"
    changed = json.loads(path.read_text())
    changed.pop("digest")
    from ghostdeploy.bundle.manifest import decode

    found = decode(json.dumps(changed | {"created": "2027-01-01T00:00:00+00:00"}).encode(), where="x")
    path.write_bytes(encode(found))

    answer = run(capsys, "report", evidence)

    assert_one_sentence(answer, 3, f"{file} is about a bundle", "ghostdeploy diagnose BUNDLE --json > diagnosis.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"diagnosis": 2}', "has schema 2, expected 1"),
        ('{"diagnosis": 1, "live": {}}', "is no diagnosis"),
        ('{"diagnosis": ', "is no diagnosis"),
        ('{"diagnosis"\xff', "is no diagnosis"),
    ],
)
def test_a_damaged_diagnosis_is_refused(evidence, capsys, tmp_path, content, words):
    file = tmp_path / "x.json"
    file.write_bytes(content.encode("latin-1"))

    assert held.is_held(file)
    assert_one_sentence(run(capsys, "report", evidence, file, "-o", tmp_path / "r.html"), 3, f"{file} ", words)


def test_check_takes_no_diagnose(capsys, written):
    assert_one_sentence(run(capsys, "report", written, "--check", "--diagnose"), 2, "--check takes one page")

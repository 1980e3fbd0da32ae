"""`report FILE.html --check`: every change of page, record or files is found."""

from __future__ import annotations

import re
import shutil

import msgspec
import pytest

from ghostdeploy.bundle.digest import digest_of
from ghostdeploy.bundle.manifest import decode, encode
from ghostdeploy.deploy.report import page as pages
from ghostdeploy.deploy.report.records import sealed
from tests.commands import assert_one_sentence, run
from tests.report.conftest import record_of


def test_an_untouched_page_passes(capsys, written):
    answer = run(capsys, "report", written, "--check", "--json")

    assert answer.code == 0, answer.err
    assert answer.document["differences"] == []
    assert answer.document["not_compared"] == []
    assert (answer.document["bundles"], answer.document["receipts"]) == (2, 1)


def test_page_and_files_can_be_moved_together(capsys, written, tmp_path):
    shutil.copytree(written.parent, tmp_path / "moved")

    assert run(capsys, "report", tmp_path / "moved" / "report.html", "--check").code == 0


def test_a_number_changed_on_the_page_is_found(capsys, written):
    text = written.read_text("utf-8")
    place = re.search(r"<data [^>]*>([^<]+)</data>", text)
    written.write_text(text[: place.start(1)] + "1e-99" + text[place.end(1) :], "utf-8")

    answer = run(capsys, "report", written, "--check")

    assert answer.code == 1
    assert "the page is not what its record gives" in answer.out


def test_a_number_changed_in_the_record_is_refused(capsys, written):
    text = written.read_text("utf-8")
    written.write_text(re.sub(r'"size_bytes":\d+', '"size_bytes":1', text, count=1), "utf-8")

    assert_one_sentence(run(capsys, "report", written, "--check"), 3, "was altered")


def test_a_record_that_was_sealed_again_differs_from_the_files(capsys, written):
    report = record_of(written)
    model = report.models[0]
    first = msgspec.structs.replace(model.bundles[0], size_bytes=1)
    model = msgspec.structs.replace(model, bundles=(first, *model.bundles[1:]))
    changed = sealed(msgspec.structs.replace(report, models=(model,)))
    assert changed.digest == digest_of(msgspec.json.encode(changed))
    written.write_text(pages.render(changed, written.name), "utf-8")

    answer = run(capsys, "report", written, "--check", "--json")

    assert answer.code == 1
    assert any("models.0.bundles.0.size_bytes is 1 in the report" in one for one in answer.document["differences"])


def test_answers_that_were_changed_are_found(capsys, written):
    report = record_of(written)
    model = report.models[0]
    pair = msgspec.structs.replace(model.answers.pairs[0], same=1, share=1 / 3)
    answers = msgspec.structs.replace(model.answers, pairs=(pair, *model.answers.pairs[1:]))
    changed = sealed(msgspec.structs.replace(report, models=(msgspec.structs.replace(model, answers=answers),)))
    written.write_text(pages.render(changed, written.name), "utf-8")

    answer = run(capsys, "report", written, "--check", "--json")

    assert answer.code == 1
    assert any("answers.pairs.0.same" in one for one in answer.document["differences"])


def test_answers_of_another_processor_are_not_compared(capsys, written):
    report = record_of(written)
    model = report.models[0]
    answers = msgspec.structs.replace(model.answers, machine="another one", flipped=1)
    changed = sealed(msgspec.structs.replace(report, models=(msgspec.structs.replace(model, answers=answers),)))
    written.write_text(pages.render(changed, written.name), "utf-8")

    answer = run(capsys, "report", written, "--check", "--json")

    assert answer.code == 0, answer.document
    assert "another one" in answer.document["not_compared"][0]


def test_a_bundle_that_changed_since_is_found(capsys, written, proven):
    manifest = proven / "tiny-onnx-fp32" / "manifest.json"
    found = decode(manifest.read_bytes(), where="x")
    manifest.write_bytes(encode(msgspec.structs.replace(found, created="2027-01-01T00:00:00+00:00")))
    (proven / "home.json").unlink()

    answer = run(capsys, "report", written, "--check", "--json")

    assert answer.code == 1
    assert "home.json" in answer.document["differences"][0]


@pytest.mark.parametrize("name", ["tiny-onnx-int8/model.onnx", "tiny-onnx-fp32/manifest.json"])
def test_a_bundle_that_is_damaged_or_gone_is_found(capsys, written, proven, name):
    (proven / name).unlink()

    answer = run(capsys, "report", written, "--check", "--json")

    assert answer.code == 1
    assert name.split("/")[0] in answer.document["differences"][0]


@pytest.mark.parametrize(
    "content", ["", "<html></html>", '<script type="application/json" id="ghostdeploy-report">{}</script>']
)
def test_what_is_no_report_is_refused(capsys, tmp_path, content):
    (tmp_path / "x.html").write_text(content)

    answer = run(capsys, "report", tmp_path / "x.html", "--check")

    assert_one_sentence(answer, 3, "x.html")


def test_check_takes_one_page_alone(capsys, written, proven):
    assert_one_sentence(run(capsys, "report", written, proven, "--check"), 2, "--check takes one page")

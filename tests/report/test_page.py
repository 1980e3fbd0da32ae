"""The page: verdict first, nothing invented, nothing from outside, numbers of its own record, the same every time."""

from __future__ import annotations

import json
import re
import shutil

import msgspec
import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.deploy.report import markdown
from ghostdeploy.deploy.report.figures import FORMS, Figures
from ghostdeploy.deploy.report.make import make_report
from ghostdeploy.deploy.report.page import render
from ghostdeploy.deploy.report.speed_charts import Point, undominated
from tests.broken import MODULE
from tests.commands import run
from tests.report.conftest import record_of


def test_the_verdict_of_every_bundle_comes_first(written):
    text = written.read_text("utf-8")

    first = text.index('id="verdict"')
    assert all(
        first < text.index(f">{title}</h3>") for title in ("Provenance and hashes", "Fold certificate", "Devices")
    )
    verdicts = text[first : text.index("Provenance and hashes</h3>")]
    assert "tiny-onnx-fp32" in verdicts
    assert "tiny-onnx-int8" in verdicts


def test_a_broken_block_is_named_before_all_else(trained, tmp_path):
    page = render(make_report([*trained], tmp_path / "r.html"), "r.html")
    said = page[page.index("<main>") : page.index("Provenance and hashes</h3>")]

    assert "Broken block" in said
    assert MODULE in said
    assert "--force" in said
    assert said.index("broken") < said.index("ghostnet_050-onnx-fp32")  # what failed stands above what passed


def test_nothing_comes_from_outside(written):
    text = written.read_text("utf-8")
    shown = text[: text.index('<script type="application/json"')]

    assert "default-src 'none'" in text
    assert re.findall(r"<script(?! type=\"application/json\")", text) == []
    assert [
        one for one in re.findall(r'(?:src|href)="([^"]*)"', shown) if not one.startswith(("#", "data:image/"))
    ] == []


def test_identifiers_are_unique(written):
    found = re.findall(r'\sid="([^"]*)"', written.read_text("utf-8"))

    assert len(found) == len(set(found))


def test_what_is_absent_is_named_with_its_command(tiny, tmp_path):
    page = render(make_report([tiny], tmp_path / "r.html"), "r.html")

    for command in ("ghostdeploy bench ", "ghostdeploy eval ", "--on ssh://HOST --receipt", "--data SET"):
        assert command in page


def test_the_same_record_gives_the_same_page(written):
    report = record_of(written)

    assert render(report, "r.html") == render(report, "r.html")


def test_names_of_others_are_text(tiny, tmp_path):
    folder = tmp_path / "evil"
    shutil.copytree(tiny / "tiny-onnx-int8", folder)
    found = open_bundle(folder).manifest
    name = '</script><img src=x onerror="alert(1)">$\\frac{1}{2}$\u202e'
    model = msgspec.structs.replace(found.model, name=name, source="'; rm -rf /")
    (folder / "manifest.json").write_bytes(encode(msgspec.structs.replace(found, name=name, model=model)))

    report = make_report([folder], tmp_path / "r.html")
    page = render(report, "r.html")

    assert "<img src=x" not in page
    assert "\u202e" not in page[: page.index('id="ghostdeploy-report"')]
    assert page.count("</script>") == 1
    (tmp_path / "r.html").write_text(page, "utf-8")
    assert record_of(tmp_path / "r.html") == report
    assert "<img" not in markdown.render(report)


def test_the_record_is_what_json_prints(capsys, proven, tmp_path):
    answer = run(capsys, "report", proven, "-o", tmp_path / "r.html", "--json")

    assert answer.document == json.loads(msgspec.json.encode(record_of(tmp_path / "r.html")))


def test_markdown_names_verdicts_and_the_broken_block(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    answer = run(capsys, "report", *trained, "--markdown")

    assert answer.code == 0
    assert answer.out.startswith("### ghostdeploy: failed")
    assert f"broken block `{MODULE}`" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_markdown_goes_to_a_file_where_one_is_named(capsys, proven, tmp_path):
    assert run(capsys, "report", proven, "--markdown", "-o", tmp_path / "r.md").code == 0
    assert (tmp_path / "r.md").read_text("utf-8").startswith("### ghostdeploy: ")


def test_answers_are_held_against_pytorch_and_each_other(trained, tmp_path):
    (model,) = make_report([*trained], tmp_path / "r.html").models
    found = {(pair.first, pair.second): pair for pair in model.answers.pairs}

    assert model.answers.keys == ("PyTorch", "A", "B", "C")
    assert len(found) == 6
    assert found["PyTorch", "A"].share == 1.0
    assert found["PyTorch", "C"].share < 1.0
    assert found["PyTorch", "A"].sqnr_db > 100 > found["PyTorch", "B"].sqnr_db > found["PyTorch", "C"].sqnr_db
    assert model.answers.flipped == len(model.answers.flips) > 0
    assert all(flip.picture.startswith("data:image/") for flip in model.answers.flips)


def test_a_labelled_set_shows_what_flipped_with_its_label(trained, tmp_path):
    from ghostdeploy import samples

    (model,) = make_report([*trained], tmp_path / "r.html", data=samples.evaluation_set()).models
    by_key = {
        key: [flip for flip in model.answers.flips for a in flip.answers if a.key == key and not a.same]
        for key in "ABC"
    }

    assert model.answers.images == 1000
    assert model.answers.reference == "A"
    assert by_key["A"] == []
    assert by_key["B"]  # the broken one has most, and leaves room
    assert all(flip.truth for flip in model.answers.flips)


def test_what_nothing_beats_is_on_the_front():
    best, cheap, beaten = (
        Point(key, 0, cost, value, value, value) for key, cost, value in (("a", 2, 9), ("b", 1, 8), ("c", 2, 8))
    )

    assert undominated([best, cheap, beaten]) == [best, cheap]


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.931, "share", "93.10 %"),
        (-0.0011, "points", "−0.11"),
        (1000, "count", "1\u202f000"),
        (1 - 5e-14, "cosine", "1 − 5e-14"),
        (0.99804, "cosine", "0.99804"),
        (-12.04, "db", "−12.0"),
        (0.4712, "ms", "0.471"),
    ],
)
def test_a_figure_is_tied_to_its_place(value, form, text):
    shown = Figures({"a": [{"b": value}]}).show("a.0.b", form)

    assert shown == f'<data value="{json.dumps(value)}" data-json="a.0.b">{text}</data>'
    assert form in FORMS


def test_a_missing_library_is_named_with_the_pip_command(capsys, monkeypatch, tmp_path):
    import sys

    from tests.commands import assert_one_sentence

    monkeypatch.setitem(sys.modules, "jinja2", None)

    assert_one_sentence(run(capsys, "report", tmp_path), 4, "report needs jinja2", 'pip install "ghostdeploy[report]"')


def test_a_single_embedding_decides_nothing():
    import numpy as np

    from ghostdeploy.tasks.base import TaskInfo
    from ghostdeploy.tasks.table import task_of

    task = task_of(TaskInfo(name="embed"), (8, 8))
    vectors = {"embedding": np.eye(4, dtype=np.float32)}

    assert task.agree({"embedding": vectors["embedding"][:1]}, {"embedding": vectors["embedding"][:1]}) == (0, 0)
    assert task.agree(vectors, vectors).of == 6

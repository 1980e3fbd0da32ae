"""A receipt that was altered, is about another bundle, or contradicts its own figures is found."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest

from ghostdeploy.bundle.digest import digest_of
from ghostdeploy.device.receipt import Receipts, read
from tests.commands import assert_one_sentence, run


@pytest.fixture
def proven(capsys, tiny_bundle, tmp_path):
    """A receipt with latency and its bundle, beside each other."""
    path = shutil.copytree(tiny_bundle("onnx", "int8"), tmp_path / "bundle")
    answer = run(capsys, "bench", path, "--rounds", 8, "--receipt", tmp_path / "r.json")
    assert answer.code == 0, answer.err
    return tmp_path / "r.json"


def edit(path, change, *, seal=True):
    """Changes a receipt as a forger would: with a new digest."""
    document = json.loads(path.read_text())
    change(document["receipts"][0])
    if seal:
        for one in document["receipts"]:
            one["digest"] = digest_of(json.dumps(one).encode())
    path.write_text(json.dumps(document))


def test_it_passes(capsys, proven):
    answer = run(capsys, "verify", proven, "--json")

    assert answer.code == 0, answer.err
    (found,) = answer.document
    assert (found["verdict"], found["proven"], found["failed_because"]) == ("passed", "passed", None)


def test_its_bundle_may_be_elsewhere(capsys, proven, tmp_path):
    elsewhere = shutil.move(proven.parent / "bundle", tmp_path / "moved")

    missing = run(capsys, "verify", proven)
    assert_one_sentence(missing, 3, "the bundle of", "is not at", f"ghostdeploy verify {proven} BUNDLE")
    assert run(capsys, "verify", proven, elsewhere).code == 0


def test_a_changed_receipt_is_refused(capsys, proven):
    edit(proven, lambda one: one["device"].update(model="Raspberry Pi 5"), seal=False)

    assert_one_sentence(run(capsys, "verify", proven), 3, "was altered: its digest is")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one["bundle"].update(digest="0" * 64), "it is about another bundle"),
        (lambda one: one["bundle"]["files"].update({"model.onnx": "0" * 64}), "files differ"),
        (lambda one: one["parity"].update(non_finite=1), "its parity is called passed"),
        (lambda one: one["execution"].update(verdict="failed"), "it says passed, and its figures failed"),
        (lambda one: one["latency"].update(median_ms=0.001), "its median_ms is 0.001, that of its calls"),
        (lambda one: one["device"].update(emulated=True, emulator="qemu"), "times of an emulated processor"),
        (lambda one: one.update(validity=["nothing"]), "the rules that it calls broken"),
        (lambda one: one.update(steady=None), "steady is null"),
        (lambda one: one.update(verdict="failed", failed_because="it was too slow"), "it was too slow"),
    ],
)
def test_what_does_not_follow_from_its_figures(capsys, proven, change, words):
    edit(proven, change)

    answer = run(capsys, "verify", proven, "--json")

    assert answer.code == 1
    assert words in answer.document[0]["failed_because"]


def test_another_bundle_of_that_name(capsys, proven, tiny_bundle):
    shutil.rmtree(proven.parent / "bundle")
    shutil.copytree(tiny_bundle("onnx"), proven.parent / "bundle")

    answer = run(capsys, "verify", proven, "--json")

    assert answer.code == 1
    assert "it is about another bundle" in answer.document[0]["failed_because"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a receipt"),
        ("[]", "is not a receipt"),
        ('{"receipts": [{}]}', "is not a receipt"),
        ('{"receipts": [1]}', "is not a receipt"),
        ("[" * 100_000, "is not a receipt"),
    ],
)
def test_what_is_no_receipt(capsys, tmp_path, text, words):
    (tmp_path / "r.json").write_text(text)

    for command in ("verify", "inspect"):
        assert_one_sentence(run(capsys, command, tmp_path / "r.json"), 3, words)


def test_a_schema_of_the_future(capsys, proven):
    edit(proven, lambda one: one.update(schema=2))

    assert_one_sentence(run(capsys, "verify", proven), 3, "schema 2, expected 1")


def test_inspect_shows_it(capsys, proven):
    shown = run(capsys, "inspect", proven)

    assert shown.code == 0, shown.err
    for word in ("kernels", "QLinearConv", "latency", "broken rules", "execution gap"):
        assert word in shown.out
    assert run(capsys, "inspect", proven, "--json").document[0]["schema"] == 1


def test_it_is_read_as_it_was_written(proven):
    found = read(proven)

    assert msgspec.json.decode(proven.read_bytes(), type=Receipts).receipts == found


def test_a_folder_that_cannot_be_written(capsys, tiny_bundle, tmp_path):
    answer = run(capsys, "verify", tiny_bundle("onnx"), "--receipt", tmp_path / "none" / "r.json")

    assert_one_sentence(answer, 4, "the receipt", "cannot be written")


def test_a_receipt_is_not_sent_to_a_device(capsys, proven):
    answer = run(capsys, "verify", proven, "--on", "qemu://cortex-a72")

    assert_one_sentence(answer, 2, "is a receipt, which is checked here")

"""Commands on a device over ssh say what they say at home, send a bundle once, and leave nothing but that."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from ghostdeploy import samples
from ghostdeploy.device import receipt
from ghostdeploy.remote.cargo import Cargo
from tests.commands import run
from tests.exported import sample_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    return [sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision=one) for one in ("fp32", "int8")]


def without_device(document):
    for entry in document:
        entry.pop("device")
    return document


def test_verify_says_what_it_says_at_home(capsys, board, bundles):
    here = run(capsys, "verify", *bundles, "--json")
    there = run(capsys, "verify", *bundles, "--json", *board.options)

    assert there.code == here.code == 0, there.err
    assert without_device(there.document) == here.document


def test_eval_says_what_it_says_at_home_with_the_images_of_a_folder(capsys, board, bundles):
    command = ("eval", bundles[1], "--reference", bundles[0], "--data", samples.evaluation_set(), "--json")

    here, there = run(capsys, *command), run(capsys, *command, *board.options)

    assert there.code == here.code == 0, there.err
    assert without_device(there.document) == here.document


def test_bench_measures_there_and_writes_receipts_with_every_call(capsys, board, tiny_bundle, tmp_path):
    path = tiny_bundle("onnx")

    there = run(capsys, "bench", path, "--rounds", 8, "--json", *board.options, "--receipt", tmp_path / "r.json")

    assert there.code == 0, there.err
    assert there.document["device"]["where"] == board.address
    (found,) = receipt.read(tmp_path / "r.json")
    assert len(found.latency.blocks_ms) == 8
    assert sum(map(len, found.latency.blocks_ms)) == there.document["bundles"][0]["calls"]
    assert found.verdict == "passed"


def test_a_bundle_is_sent_once(capsys, board, tiny_bundle, monkeypatch):
    path, sent = tiny_bundle("tflite"), []
    for one in (board.cache / "ghostdeploy/device/objects").glob("*"):  # other tests may have sent it
        one.unlink()
    content = Cargo.content
    monkeypatch.setattr(Cargo, "content", lambda cargo, name: sent.append(name) or content(cargo, name))

    first = run(capsys, "verify", path, *board.options)
    before = len(sent)
    second = run(capsys, "verify", path, *board.options)

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert before >= 3
    assert len(sent) == before


def test_a_kept_file_that_was_changed_there_is_sent_again(capsys, board, tiny_bundle):
    path = tiny_bundle("onnx")
    assert run(capsys, "verify", path, *board.options).code == 0
    objects = list((board.cache / "ghostdeploy/device/objects").iterdir())
    for one in objects:
        one.chmod(0o600)
        one.write_bytes(b"something else")

    assert run(capsys, "verify", path, *board.options).code == 0


def test_only_whole_files_and_the_package_are_left(capsys, board, tiny_bundle):
    assert run(capsys, "verify", tiny_bundle("onnx"), *board.options).code == 0

    assert board.rests()
    left = {name for name in board.listing() if "/packages/" not in name and len(name.rpartition("/")[2]) != 64}
    home = "ghostdeploy/device"
    assert left == {"ghostdeploy", home, f"{home}/objects", f"{home}/packages"}


def test_a_package_that_was_changed_there_is_unpacked_again(capsys, board, tiny_bundle):
    assert run(capsys, "verify", tiny_bundle("onnx"), *board.options).code == 0
    for package in (board.cache / "ghostdeploy/device/packages").iterdir():  # `diagnose` has one of its own
        (package / "ghostdeploy/device/supervise.py").write_text("raise SystemExit(7)\n")

    assert run(capsys, "verify", tiny_bundle("onnx"), *board.options).code == 0


def test_a_receipt_names_bundle_device_engine_kernels_and_states(capsys, board, bundles, tmp_path):
    assert run(capsys, "verify", bundles[1], *board.options, "--receipt", tmp_path / "r.json").code == 0

    (found,) = receipt.read(tmp_path / "r.json")
    manifest = json.loads((bundles[1] / "manifest.json").read_text())
    assert found.bundle.digest == manifest["digest"]
    assert found.device.reached == "ssh"
    assert found.device.cores
    assert found.engine.startswith("onnxruntime ")
    assert len(found.engine_record) == 64
    assert any("QLinearConv" in kernel and "uint8" in kernel for kernel in found.placement.kernels)
    assert len(found.states) >= 2
    assert found.latency is None
    assert found.no_latency_because == "verify measures none"
    assert all(getattr(found.device, name) is None for name in found.device.unread if hasattr(found.device, name))


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_receipt_from_home_has_the_same_form(capsys, tiny_bundle, tmp_path, command):
    more = ("--rounds", 8) if command == "bench" else ()

    answer = run(capsys, command, tiny_bundle("onnx"), *more, "--receipt", tmp_path / "r.json")

    assert answer.code == 0, answer.err
    (found,) = receipt.read(tmp_path / "r.json")
    assert (found.command, found.device.where) == (command, "home")
    assert (found.latency is None) == (command == "verify")


def test_eval_leaves_a_receipt_with_the_accuracy(capsys, board, bundles, tmp_path):
    data = samples.evaluation_set()

    here = run(capsys, "eval", bundles[0], "--data", data, "--json", "--receipt", tmp_path / "here.json")
    run(capsys, "eval", bundles[0], "--data", data, *board.options, "--receipt", tmp_path / "there.json")

    (home,), (device,) = receipt.read(tmp_path / "here.json"), receipt.read(tmp_path / "there.json")
    assert home.accuracy == device.accuracy
    assert home.accuracy.top1.value == here.document[0]["top1"]["value"]


def test_several_devices_are_asked_at_once(capsys, board, tiny_bundle):
    path = tiny_bundle("onnx")
    other = f"ssh://board:{board.port}"

    there = run(capsys, "verify", path, path, "--json", *board.options, "--on", other)

    assert there.code == 0, there.err
    assert [entry["device"]["where"] for entry in there.document] == [board.address] * 2 + [other] * 2


def test_a_device_that_fails_does_not_keep_the_others_from_answering(capsys, board, tiny_bundle):
    there = run(capsys, "verify", tiny_bundle("onnx"), "--json", *board.options, "--on", "ssh://board:1")

    assert there.code == 4
    assert [entry.get("verdict") for entry in there.document] == ["passed", None]
    assert "takes no ssh connections" in there.document[1]["error"]["message"]


def test_doctor_examines_the_device(capsys, board):
    there = run(capsys, "doctor", "--json", *board.options)

    assert there.code == 0, there.err
    assert {one["target"]: one["can_run"] for one in there.document["targets"]}["onnx"]
    assert not any(one["can_export"] for one in there.document["targets"])
    assert there.document["device"]["where"] == board.address


def test_what_the_device_lacks_is_the_error_of_that_bundle(capsys, board, tiny_bundle):
    there = run(capsys, "verify", tiny_bundle("onnx"), tiny_bundle("tensorrt"), "--json", *board.options)

    assert there.code == 4
    assert [entry["verdict"] for entry in there.document] == ["passed", "failed"]


def test_names_that_json_escapes_come_back_as_they_were(capsys, board, tiny_bundle, tmp_path):
    odd = shutil.copytree(tiny_bundle("onnx"), tmp_path / 'a "quoted" \\ folder, ünïcode')

    there = run(capsys, "verify", odd, odd, "--json", *board.options)

    assert there.code == 0, there.err
    assert [entry["bundle"] for entry in there.document] == [str(odd)] * 2


def test_a_bundle_that_is_named_twice_is_evaluated_twice(capsys, board, bundles):
    command = ("eval", bundles[0], bundles[0], "--data", samples.evaluation_set(), "--json")

    here, there = run(capsys, *command), run(capsys, *command, *board.options)

    assert there.code == here.code == 0, there.err
    assert without_device(there.document) == here.document


def test_nothing_is_imported_from_the_folder_of_the_login(capsys, board, tiny_bundle, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncd {tmp_path}; exec {sys.executable} "$@"\n')
    python.chmod(0o755)

    there = run(capsys, "verify", tiny_bundle("onnx"), "--on", board.address, "--device-python", python)

    assert there.code == 0, there.err

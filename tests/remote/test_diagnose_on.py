"""A payload here against what a device computes: a block that differs is named, sound ones are not."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from ghostdeploy.device.jobs import Event, Tensor
from ghostdeploy.errors import ExportFailed
from ghostdeploy.remote import looking_inside
from ghostdeploy.remote.device_wheel import device_wheel
from tests.commands import assert_one_sentence, run
from tests.conftest import require
from tests.emulated import require_emulator
from tests.exported import sample_bundle
from tests.planted import plant

CHAIN = "blocks.3.0.ghost2.primary_conv.0"
SAME_DB = 120.0
"""An engine may fuse otherwise where a tensor is asked for: not all is exact, even on one machine."""
ENGINES = ("onnx", "openvino", "tflite", "ncnn")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("target", ENGINES)
def test_the_same_bundle_on_the_same_machine_is_the_same(target, precision, capsys, board, tiny_bundle):
    require(target)
    path = tiny_bundle(target, precision)

    answer = run(capsys, "diagnose", path, "--json", *board.options)

    assert answer.code == 0, answer.err
    live = answer.document["live"]
    assert all(block["introduced_db"] is None or block["introduced_db"] > SAME_DB for block in live["blocks"])
    assert len({layer for block in live["blocks"] for layer in block["layers"]}) == 3
    assert live["reference"] == f"{path} on {board.address}"
    assert live["there"]["same_bundle"]
    assert answer.document["device"]["where"] == board.address
    assert "computes what is computed here" in live["advice"]
    assert board.rests()


@pytest.mark.parametrize("layer", ["first", "depthwise", "classifier"])
@pytest.mark.parametrize("target", ENGINES)
def test_a_block_that_differs_there_is_named(target, layer, capsys, board, tiny_bundle, tmp_path):
    """The device runs a bundle of the same model whose payload has one wrong layer."""
    require(target)
    sound = tiny_bundle(target, "int8")
    wrong = plant(sound, tmp_path / "wrong", layer, "permuted")

    answer = run(capsys, "diagnose", sound, wrong, "--json", *board.options)

    live = answer.document["live"]
    assert answer.code == 1, answer.err
    assert [one["layers"] for one in live["wrong"]] == [[layer]]
    assert live["reference"] == f"{wrong} on {board.address}"
    assert not live["there"]["same_bundle"]
    assert "leave --on out" in live["advice"]


@pytest.mark.slow
def test_a_block_of_the_trained_model_that_a_device_computes_otherwise_is_named(
    capsys, board, tmp_path_factory, tmp_path, monkeypatch
):
    """The device has the bundle under its own hash, and what lies behind is another payload: as if kernels differed."""
    sound = sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision="int8")
    wrong = plant(sound, tmp_path / "wrong", CHAIN, "zeroed")
    opened = looking_inside.Cargo.bundle
    monkeypatch.setattr(
        looking_inside.Cargo,
        "bundle",
        lambda cargo, bundle, given: opened(cargo, looking_inside.open_bundle(wrong), given),
    )

    answer = run(capsys, "diagnose", sound, *board.options, "--top", 3)
    document = run(capsys, "diagnose", sound, *board.options, "--json").document

    said = " ".join((answer.out + answer.err).split())
    assert answer.code == 1, answer.err
    assert f"wrong: {CHAIN} introduces" in said
    assert f"{CHAIN} is the same in both places" in said
    assert [one["layers"] for one in document["live"]["wrong"]] == [[CHAIN]]
    assert {one["allowed_db"] for one in document["live"]["wrong"]} == {40.0}
    others = [one for one in document["live"]["blocks"] if one["layers"] != [CHAIN]]
    assert min(200.0 if one["introduced_db"] is None else one["introduced_db"] for one in others) > 60


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "tflite", "ncnn"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_emulated_core_computes_every_block_of_the_trained_model(target, precision, capsys, tmp_path_factory):
    require(target)
    require_emulator("cortex-a76")
    path = sample_bundle(tmp_path_factory, "ghostnet_050", target, precision=precision)

    answer = run(capsys, "diagnose", path, "--on", "qemu://cortex-a76", "--json")

    assert answer.code == 0, answer.err
    live = answer.document["live"]
    assert (live["wrong"], live["left_out"]) == ([], [])
    assert len(live["blocks"]) > 80
    assert answer.document["device"]["emulated"]


@pytest.mark.slow
def test_what_a_device_lacks_is_one_sentence_with_the_package(capsys, tiny_bundle):
    require_emulator("cortex-a72")

    answer = run(capsys, "diagnose", tiny_bundle("onnx"), "--on", "qemu://cortex-a72")

    assert_one_sentence(answer, 4, "on qemu://cortex-a72", "onnx is not installed", "-m pip install onnx")


def test_no_more_images_are_sent_than_there_is_room_for(capsys, board, tiny_bundle, monkeypatch):
    path = tiny_bundle("onnx")
    whole = run(capsys, "diagnose", path, "--json", *board.options).document["live"]["images"]
    sizes = looking_inside.Opened(looking_inside.open_bundle(path)).own(1).values()
    monkeypatch.setattr(looking_inside, "SENT_BYTES", 2 * sum(array.nbytes for array in sizes))

    answer = run(capsys, "diagnose", path, *board.options)

    assert whole == 3
    assert "on 2 images" in " ".join((answer.out + answer.err).split())


def test_several_devices_have_an_entry_each(capsys, board, tiny_bundle):
    other = f"ssh://board:{board.port}"

    answer = run(
        capsys, "diagnose", tiny_bundle("onnx"), "--json", *board.options, "--on", other, "--on", "ssh://board:1"
    )

    assert answer.code == 4
    assert [entry["device"]["where"] for entry in answer.document] == [board.address, other, "ssh://board:1"]
    assert [entry.get("live") is not None for entry in answer.document] == [True, True, False]


def test_a_phone_cannot(capsys, tiny_bundle):
    answer = run(capsys, "diagnose", tiny_bundle("ncnn"), "--on", "adb://1234")

    assert_one_sentence(answer, 4, "adb://1234 has no Python, which diagnose needs there", "verify, eval, bench")


def test_a_target_that_shows_nothing_inside_is_refused_before_anything_is_sent(capsys, tiny_bundle):
    require("executorch")

    answer = run(capsys, "diagnose", tiny_bundle("executorch"), "--on", "ssh://nowhere.invalid")

    assert_one_sentence(answer, 2, "executorch shows nothing inside a payload")


@pytest.mark.parametrize("more", [("--recorded",), ("--model", "ghostnet_050"), ("--weights", "w.pth")])
def test_one_reference_at_a_time(capsys, tiny_bundle, more):
    answer = run(capsys, "diagnose", tiny_bundle("onnx"), "--on", "ssh://nowhere.invalid", *more)

    assert_one_sentence(answer, 2, "takes no other reference", "leave out --recorded")


def test_bundles_of_two_models_are_refused(capsys, tiny_bundle, tmp_path):
    from tests.bundles import Tiny, make_bundle

    other = make_bundle(tmp_path / "other", "onnx", tiny=Tiny(size=24))

    answer = run(capsys, "diagnose", tiny_bundle("onnx"), other, "--on", "ssh://nowhere.invalid")

    assert_one_sentence(answer, 3, "of different models")


def test_equalized_channels_need_no_factors_between_devices(capsys, board, tiny_bundle, tmp_path):
    from ghostdeploy.bundle.folder import open_bundle
    from ghostdeploy.bundle.manifest import PassRecord, encode

    path = shutil.copytree(tiny_bundle("onnx", "int8"), tmp_path / "old")
    equalized = PassRecord(name="EqualizeChannels", sites=3, max_relative_error=0.0)
    manifest = msgspec.structs.replace(open_bundle(path).manifest, passes=(equalized,))
    (path / "manifest.json").write_bytes(encode(manifest))

    assert run(capsys, "diagnose", path, *board.options).code == 0


@pytest.mark.parametrize(
    ("shape", "data"), [((2, 3), b"\0" * 20), ((1, 3), b"\0" * 12), ((), b"\0" * 4)], ids=["short", "images", "scalar"]
)
def test_tensors_that_are_not_what_was_asked_for_are_refused(shape, data):
    sent = msgspec.json.decode(
        msgspec.json.encode(Event(job=0, tensor=Tensor(name="x", shape=shape, data=data))), type=Event
    )

    with pytest.raises(ExportFailed, match=r"ssh://board sent \d+ bytes for tensor x"):
        looking_inside._arrays("ssh://board", [sent.tensor], 2)


def test_only_a_diagnosis_sends_what_looks_inside():
    plain, inside = device_wheel()[1], device_wheel(inside=True)[1]

    assert b"runtimes/onnx/probe.py" not in plain
    assert b"runtimes/onnx/probe.py" in inside
    assert len(plain) < len(inside) < 1.2 * len(plain)

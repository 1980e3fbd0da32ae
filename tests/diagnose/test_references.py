"""What a bundle is held against, and what is said where that is impossible."""

from __future__ import annotations

import shutil

import pytest
from msgspec.structs import replace

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import PassRecord, encode
from ghostdeploy.deploy.prove.layerwise.command import float_neighbour
from tests.bundles import Tiny, make_bundle
from tests.commands import assert_one_sentence, run
from tests.conftest import require
from tests.planted import plant

INSIDE = [row.name for row in targets.TARGETS.values() if row.probe is not None]


@pytest.fixture
def beside(tiny_bundle, tmp_path):
    """Copies tiny bundles into one folder, so that they are neighbours."""

    def copy(target, precision="fp32"):
        require(target)
        path = tiny_bundle(target, precision=precision)
        return shutil.copytree(path, tmp_path / path.name)

    return copy


@pytest.mark.parametrize("target", INSIDE)
def test_a_float_bundle_beside_it_is_the_reference(target, beside, capsys):
    float_bundle, path = beside("onnx"), beside(target, "int8")

    live = run(capsys, "diagnose", path, "--json").document["live"]

    assert live["reference"].endswith(float_bundle.name)
    assert {layer for block in live["blocks"] for layer in block["layers"]} == {"first", "depthwise", "classifier"}
    assert live["wrong"] == []


@pytest.mark.parametrize("target", INSIDE)
def test_each_layer_of_a_small_network_is_found_by_name(target, beside, tmp_path, capsys):
    sound, path = beside("onnx"), beside(target, "int8")
    for layer in ("first", "depthwise", "classifier"):
        wrong = plant(path, tmp_path / f"wrong-{layer}", layer, "permuted")

        answer = run(capsys, "diagnose", wrong, sound, "--json")

        assert answer.code == 1
        assert [one["layers"] for one in answer.document["live"]["wrong"]] == [[layer]]


def test_without_a_reference_what_was_recorded_is_told(tiny_bundle, tmp_path, capsys):
    path = shutil.copytree(tiny_bundle("onnx", precision="int8"), tmp_path / "alone")

    answer = run(capsys, "diagnose", path)
    document = run(capsys, "diagnose", path, "--json").document

    assert answer.code == 0
    assert "depthwise" in answer.out
    assert "nothing to hold the payload against" in " ".join((answer.out + answer.err).split())
    assert document["live"] is None
    assert len(document["layers"]) == 3


def test_what_was_recorded_alone_is_shown_on_request(beside, capsys):
    beside("onnx")
    path = beside("openvino", "int8")

    assert run(capsys, "diagnose", path, "--recorded", "--json").document["live"] is None


def test_a_float_bundle_without_reference_is_one_sentence(tiny_bundle, tmp_path, capsys):
    path = shutil.copytree(tiny_bundle("onnx"), tmp_path / "alone")

    assert_one_sentence(run(capsys, "diagnose", path), 2, "nothing to hold it against", "--model")


def test_bundles_of_two_models_are_refused(beside, tmp_path, capsys):
    other = make_bundle(tmp_path / "other", "onnx", tiny=Tiny(size=24))

    assert_one_sentence(run(capsys, "diagnose", beside("onnx"), other), 3, "of different models", "hint: ")


def test_a_target_that_shows_nothing_inside_says_why(beside, capsys):
    sound, path = beside("onnx"), beside("executorch")

    answer = run(capsys, "diagnose", path, sound)

    assert_one_sentence(answer, 2, "executorch shows nothing inside a payload", "ghostdeploy verify")


def test_a_quantized_bundle_that_shows_nothing_inside_tells_what_was_recorded(beside, capsys):
    beside("onnx")
    document = run(capsys, "diagnose", beside("executorch", "int8"), "--json").document

    assert "executorch shows nothing inside" in document["not_live"]
    assert len(document["layers"]) == 3


def test_one_reference_at_a_time(beside, capsys):
    sound = beside("onnx")

    for more in ((sound, "--model", "ghostnet_050"), ("--recorded", "--weights", "w.pth"), (sound, "--recorded")):
        assert_one_sentence(run(capsys, "diagnose", sound, *more), 2, "one reference")


def test_another_model_is_refused(beside, capsys):
    answer = run(capsys, "diagnose", beside("onnx"), "--model", "sample:ghostnet_050")

    assert_one_sentence(answer, 3, "sample:ghostnet_050 is not the model of")


def test_an_onnx_file_is_held_against_as_a_bundle(beside, capsys):
    answer = run(capsys, "diagnose", beside("onnx"), "--model", "net.onnx")

    assert_one_sentence(answer, 2, "net.onnx is no PyTorch model", "ghostdeploy export net.onnx -t onnx")


def test_a_damaged_neighbour_is_no_reference(beside):
    damaged, path = beside("onnx"), beside("openvino", "int8")
    (damaged / "model.onnx").write_bytes(b"")

    assert float_neighbour(open_bundle(path)) is None


def test_equalized_channels_without_their_factors_are_refused(beside, capsys):

    sound, path = beside("onnx"), beside("openvino", "int8")
    manifest = open_bundle(path).manifest
    equalized = PassRecord(name="EqualizeChannels", sites=3, max_relative_error=0.0)
    (path / "manifest.json").write_bytes(encode(replace(manifest, passes=(equalized,))))

    assert_one_sentence(
        run(capsys, "diagnose", path, sound), 3, "no record of their factors", "export the bundle again"
    )

"""A wrong block in a finished payload is found by its PyTorch name, on every engine; a sound bundle names none."""

from __future__ import annotations

import pytest

from ghostdeploy import targets
from tests.commands import run
from tests.conftest import require
from tests.exported import sample_bundle
from tests.further import further
from tests.planted import KINDS, plant

pytestmark = pytest.mark.slow

NAME = "ghostnet_050"
INSIDE = [row.name for row in targets.TARGETS.values() if row.probe is not None and row.device is None]
"""Targets whose payloads can be looked into here."""
CHAIN = "blocks.3.0.ghost2.primary_conv.0"
"""A layer that one other reads."""
GATED = "blocks.6.4.ghost1.cheap_operation.0"
"""A layer whose result meets a gate before the next convolution reads it."""
CASES = [
    (target, precision)
    for target in INSIDE
    for precision in ("fp32", "int8" if "int8" in targets.find(target).precisions else "hybrid")
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns the bundle of the trained model for a target and a precision."""

    def find(target, precision):
        require(target)
        return sample_bundle(tmp_path_factory, NAME, target, precision=precision)

    return find


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_a_sound_bundle_names_no_block(target, precision, exported, capsys):
    answer = run(capsys, "diagnose", exported(target, precision), "--json")

    live = answer.document["live"]
    assert answer.code == 0
    assert live["wrong"] == []
    assert live["left_out"] == []
    assert live["reference"] == f"the float model sample:{NAME}"
    assert len(live["blocks"]) > 80
    assert live["advice"].startswith("no block is wrong")


@pytest.mark.parametrize(("target", "precision"), CASES)
@pytest.mark.parametrize("kind", further(KINDS, usual=("scaled", "permuted")))
def test_a_wrong_layer_is_found_by_name(target, precision, kind, exported, tmp_path, capsys):
    path = plant(exported(target, precision), tmp_path / "wrong", CHAIN, kind)

    answer = run(capsys, "diagnose", path, "--json")

    live = answer.document["live"]
    assert answer.code == 1
    assert [one["layers"] for one in live["wrong"]] == [[CHAIN]]
    assert live["blocks"][0]["layers"] == [CHAIN]
    assert live["halfway"]["layers"] == [CHAIN]
    assert CHAIN in live["advice"]


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_what_a_wrong_layer_does_further_on_is_not_blamed(target, precision, exported, tmp_path, capsys):
    path = plant(exported(target, precision), tmp_path / "wrong", GATED, "permuted")

    live = run(capsys, "diagnose", path, "--json").document["live"]

    assert [one["layers"] for one in live["wrong"]] == [[GATED]]
    behind = [one for one in live["blocks"] if one["layers"] == ["blocks.6.4.ghost2.primary_conv.0"]]
    assert behind[0]["arriving_db"] < behind[0]["introduced_db"] - 10


def test_the_table_names_the_wrong_block_first_and_says_what_to_do(exported, tmp_path, capsys):
    path = plant(exported("onnx", "int8"), tmp_path / "wrong", CHAIN, "permuted")

    answer = run(capsys, "diagnose", path, "--top", "3")

    said = " ".join((answer.out + answer.err).split())
    assert answer.code == 1
    assert answer.out.index(CHAIN) < answer.out.index("blocks.", answer.out.index(CHAIN) + len(CHAIN))
    assert f"wrong: {CHAIN} introduces" in said
    assert len(answer.out.splitlines()) <= 24  # on one screen, with what the quantizer recorded left out
    assert "export the bundle again" in said
    assert "--force" in said


def test_two_bundles_of_one_model_are_compared(exported, tmp_path, capsys):
    sound, other = exported("onnx", "fp32"), exported("ncnn", "fp32")
    path = plant(other, tmp_path / "wrong", CHAIN, "scaled")

    alike, differing = (run(capsys, "diagnose", one, sound, "--json") for one in (other, path))

    assert (alike.code, differing.code) == (0, 1)
    assert alike.document["live"]["reference"] == str(sound)
    assert differing.document["live"]["wrong"][0]["layers"] == [CHAIN]


def test_two_precisions_of_one_model_are_compared(exported, capsys):
    answer = run(capsys, "diagnose", exported("tflite", "int8"), exported("openvino", "int8"), "--json")

    assert answer.code == 0
    assert answer.document["live"]["wrong"] == []

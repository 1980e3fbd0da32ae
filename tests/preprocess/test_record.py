"""The record of preprocessing: what JSON holds, what is refused, what a change implies."""

from __future__ import annotations

import msgspec
import pytest

from ghostdeploy.deploy.plan.preprocessing import apply_overrides
from ghostdeploy.errors import UsageError
from ghostdeploy.preprocess import Preprocess, changed, described
from ghostdeploy.terminal.export_options import export_options
from tests.commands import assert_one_sentence, run

BEFORE = (
    b'{"size":224,"crop_fraction":0.875,"interpolation":"bicubic","mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],'
    b'"color":"rgb","layout":"nchw","dtype":null}'
)
GRAY = {"color": "gray", "channels": 1, "mean": (0.5,), "std": (0.25,)}
LETTERBOX = {"resize": "letterbox", "crop_fraction": 1.0}


def test_the_usual_record_is_the_json_it_was_before_there_were_more_fields():
    assert msgspec.json.encode(Preprocess()) == BEFORE
    assert msgspec.json.decode(BEFORE, type=Preprocess) == Preprocess()


def test_every_field_comes_back_from_json():
    spec = Preprocess(
        size=(192, 320),
        **LETTERBOX,
        **GRAY,
        interpolation="bilinear",
        rounding="floor",
        anchor="corner",
        pad=114,
        upscale=False,
        sampling="corner",
        layout="nhwc",
    )

    assert msgspec.json.decode(msgspec.json.encode(spec), type=Preprocess) == spec


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": (0, 8)}, r"size is \(0, 8\), expected 1 to 8192 pixels"),
        ({"size": (8, 8, 8)}, "size is .*expected array of length 2"),
        ({"channels": 1}, "channels is 1, expected 3 with color rgb"),
        ({"color": "gray"}, "channels is 3, expected 1 with color gray"),
        ({"color": "gray", "channels": 1}, "mean is .*expected array of length 1, one per channel"),
        ({**GRAY, "std": (0.0,)}, "std is .*expected one positive number"),
        ({"resize": "letterbox"}, "crop_fraction is 0.875, expected 1 with resize letterbox"),
        ({"resize": "stretch"}, "crop_fraction is 0.875, expected 1 with resize stretch"),
        ({"pad": 114}, "pad is 114, without effect on resize crop"),
        ({"upscale": False}, "upscale is False, without effect on resize crop"),
        ({"anchor": "corner", "resize": "stretch", "crop_fraction": 1.0}, "anchor is 'corner', without effect"),
        ({"rounding": "ceil", "resize": "stretch", "crop_fraction": 1.0}, "rounding is 'ceil', without effect"),
        ({"sampling": "corner"}, "interpolation is bicubic, expected bilinear with sampling corner"),
        ({**LETTERBOX, "pad": 256}, "pad is 256, expected whole numbers from 0 to 255"),
        ({**LETTERBOX, "pad": 0.5}, "pad is 0.5, expected whole numbers from 0 to 255"),
        ({**LETTERBOX, "pad": (1, 2)}, "pad is .*expected one number or 3"),
        ({**LETTERBOX, "pad": 9, "pad_space": "normalized"}, "pad is 9, expected values of pixels, normalised"),
        ({**LETTERBOX, "pad": float("nan"), "pad_space": "normalized"}, "pad is nan, expected values"),
        ({**LETTERBOX, "pad": 1e308, "std": (1e9,) * 3, "pad_space": "normalized"}, "pad is 1e.308, expected values"),
        ({"unit": "0-2"}, "unit is '0-2', "),
        ({"resize": "fit"}, "resize is 'fit', "),
    ],
    ids=str,
)
def test_a_record_without_sense_is_refused_with_the_field_that_has_none(fields, words):
    with pytest.raises(ValueError, match=words):
        Preprocess(**fields)


def test_a_change_brings_what_it_implies():
    assert changed(Preprocess(), {"resize": "stretch"}).crop_fraction == 1
    assert changed(Preprocess(), {"sampling": "corner"}).interpolation == "bilinear"
    assert changed(Preprocess(), {**GRAY, "channels": 3} | {"channels": 1}).shape == (224, 224, 1)
    assert changed(Preprocess(), {"channels": 1, "mean": [0.5], "std": [1.0]}).color == "gray"
    boxed = Preprocess(**LETTERBOX, pad=114, anchor="corner", rounding="floor")
    assert changed(boxed, {"resize": "stretch"}) == Preprocess(resize="stretch", crop_fraction=1.0)
    assert changed(boxed, {"size": 32}).pad == 114


def test_what_is_implied_gives_way_to_what_is_said():
    assert changed(Preprocess(), {"resize": "letterbox", "pad": 7}).pad == 7
    with pytest.raises(msgspec.ValidationError, match=r"crop_fraction is 0\.5, expected 1"):
        changed(Preprocess(), {"resize": "letterbox", "crop_fraction": 0.5})


def test_the_padding_of_the_network_s_own_zero_is_the_nearest_pixel_to_the_mean():
    spec = Preprocess(**LETTERBOX, pad_space="normalized")

    assert spec.pad_pixels == (124, 116, 104)  # ImageNet's mean, 123.675, 116.28, 103.53
    assert msgspec.structs.replace(spec, unit="0-255", mean=(1.6, 2.0, 3.0), std=(1.0,) * 3).pad_pixels == (2, 2, 3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unit": "0-255"}, "std is 0.229,0.224,0.225, expected values for pixels of 0 … 255"),
        ({"mean": (103.5, 116.3, 123.7)}, "mean is 103.5,116.3,123.7, expected values for pixels scaled to 0 … 1"),
        ({"color": "gray"}, "mean is .*one per channel"),
    ],
    ids=str,
)
def test_mean_and_std_of_another_unit_or_channel_are_refused(fields, words):
    with pytest.raises(UsageError, match=words) as caught:
        apply_overrides(Preprocess(), fields)

    assert "--" in caught.value.hint


def test_the_line_for_people_holds_what_is_not_usual():
    assert described(Preprocess()) == (
        "224 px, crop 0.875, bicubic, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"
    )
    boxed = Preprocess(size=(192, 320), **LETTERBOX, pad=114, color="bgr")
    assert described(boxed).startswith("192×320 px, letterbox, bicubic")
    assert described(boxed).endswith("pad 114, color bgr")


def test_the_command_line_offers_the_choices_of_the_record():
    def command():
        """Carries the options."""

    options = {one.name: one for one in export_options(command).__click_params__}
    for field in msgspec.structs.fields(Preprocess):
        choices = getattr(field.type, "__args__", ())
        if field.name in options and choices and all(isinstance(one, str | int) for one in choices):
            assert list(options[field.name].type.choices) == [str(one) for one in choices]


def test_options_become_the_record(capsys, tmp_path):
    words = "export -t onnx --dry-run --json --image-size 48,80 --resize letterbox --pad 114 --color bgr --unit 0-255"
    more = "--mean 103.53,116.28,123.675 --std 57.375,57.12,58.395 --anchor corner --rounding floor --no-upscale"

    answer = run(capsys, *words.split(), *more.split(), "-o", tmp_path)

    assert answer.code == 0, answer.err
    found = msgspec.convert(answer.document["preprocess"], type=Preprocess)
    assert found == Preprocess(
        size=(48, 80),
        **LETTERBOX,
        interpolation="bilinear",
        pad=114,
        color="bgr",
        unit="0-255",
        mean=(103.53, 116.28, 123.675),
        std=(57.375, 57.12, 58.395),
        anchor="corner",
        rounding="floor",
        upscale=False,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--image-size 48x80", "neither one number of pixels nor height and width such as 192,320"),
        ("--image-size 1,2,3", "192,320"),
        ("--image-size 48,-1", "size is (48, -1)"),
        ("--pad 114", "pad is 114.0, without effect on resize crop"),
        ("--resize letterbox --pad x", "not three numbers"),
        ("--resize letterbox --pad 300", "from 0 to 255"),
        ("--color gray", "one per channel"),
        ("--channels 1 --color rgb", "channels is 1, expected 3 with color rgb"),
        ("--channels 2", "'2' is not one of"),
        ("--mean 0.5", "one per channel"),
    ],
)
def test_a_bad_option_is_one_sentence_of_usage(options, words, capsys, tmp_path):
    assert_one_sentence(run(capsys, "export", "-t", "onnx", "-o", tmp_path, *options.split()), 2, words)

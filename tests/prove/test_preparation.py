"""Pixels in the proof: original images travel with a bundle, and `verify` finds every other way to prepare them."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest
from PIL import Image
from torch import nn

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import GOLDEN, open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.bundle.writing import describe_file, write_golden
from ghostdeploy.deploy.intake.originals import originals_of
from ghostdeploy.deploy.prove import preparation
from ghostdeploy.preprocess import Preprocess, prepare
from tests.commands import run

NANODET = {"color": "bgr", "unit": "0-255", "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)}
GRAY = {"color": "gray", "channels": 1, "mean": (0.5,), "std": (0.25,)}
BASES = {
    "crop": {"size": 48, "crop_fraction": 0.79},
    "letterbox": {"size": (120, 164), "resize": "letterbox", "interpolation": "bilinear", "pad": 114, **NANODET},
    "stretch": {"size": (40, 64), "resize": "stretch"},
    "gray": {"size": 48, **GRAY},
}
EDITS = {
    "crop": [
        {"size": 40},
        {"size": (48, 50)},
        {"crop_fraction": 0.9},
        {"rounding": "floor"},
        {"interpolation": "bilinear"},
        {"mean": (0.485, 0.456, 0.407)},
        {"mean": (0.485 + 1 / 255, 0.456 + 1 / 255, 0.406 + 1 / 255)},
        {"mean": (0.406, 0.456, 0.485)},
        {"std": (0.229, 0.2245, 0.225)},
        {"std": (1e-30, 1e-30, 1e-30)},
        {"std": (1e30, 1e30, 1e30)},
        {"color": "bgr"},
        {"layout": "nhwc"},
        {"dtype": "uint8"},
        {"resize": "stretch", "crop_fraction": 1.0},
        {"resize": "letterbox", "crop_fraction": 1.0},
        {"sampling": "corner", "interpolation": "bilinear"},
        {"unit": "0-255"},
        GRAY,
        {"size": 8192},
    ],
    "letterbox": [
        {"size": (164, 120)},
        {"anchor": "corner"},
        {"pad": 113},
        {"pad": (114, 114, 115)},
        {"pad_space": "normalized", "pad": 0},
        {"upscale": False},
        {"rounding": "floor"},
        {"rounding": "ceil"},
        {"sampling": "corner"},
        {"color": "rgb"},
        {"unit": "0-1"},
        {"mean": (103.53, 116.28, 123.676)},
        {"resize": "stretch", "pad": 0.0},
    ],
    "stretch": [{"size": (64, 40)}, {"resize": "letterbox"}, {"interpolation": "bilinear"}, {"color": "bgr"}],
    "gray": [
        {"mean": (0.51,)},
        {"std": (0.26,)},
        {"crop_fraction": 0.8},
        {"color": "rgb", "channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3},
    ],
}
CASES = [pytest.param(base, edit, id=f"{base}-{edit}") for base, edits in EDITS.items() for edit in edits]
OTHER = "preprocessing gives other pixels than at export"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function (base, input kind) that gives a verified bundle of a small network, made once."""
    made, out = {}, tmp_path_factory.mktemp("preparation")

    def export(base, kind="float32-nchw"):
        if (base, kind) not in made:
            channels = BASES[base].get("channels", 3)
            net = nn.Sequential(nn.Conv2d(channels, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
            name = f"{base}-{kind[:5]}"
            bundle = gd.export(net, target="onnx", out=out, name=name, preprocess=BASES[base], input=kind)
            made[base, kind] = bundle.path
        return made[base, kind]

    return export


def edited(path, folder, fields):
    """A copy of a bundle whose preprocessing has other fields; its digest is right."""
    copy = folder / "edited"
    shutil.copytree(path, copy)
    manifest = open_bundle(copy).manifest
    spec = Preprocess(**msgspec.structs.asdict(manifest.preprocess) | fields)
    (copy / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, preprocess=spec)))
    return copy


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", ["float32-nchw", "uint8-nhwc"])
def test_a_bundle_as_it_was_exported_is_verified_exactly(exported, base, kind):
    found = gd.verify(exported(base, kind))

    assert found.verdict == "passed", found.failed_because
    assert found.preprocessing == preparation.Preparation(images=4, exact=1.0, verdict="passed")


@pytest.mark.parametrize(("base", "fields"), CASES)
def test_any_other_preprocessing_fails(exported, tmp_path, base, fields):
    found = gd.verify(edited(exported(base), tmp_path, fields))

    assert found.verdict == "failed"
    assert OTHER in found.failed_because
    assert found.preprocessing.verdict == "failed"


@pytest.mark.parametrize(
    "fields",
    [
        {"mean": (0.485, 0.456, 0.407)},
        {"std": (0.229, 0.224, 0.226)},
        {"unit": "0-255"},
        {"color": "bgr"},
        {"crop_fraction": 0.9},
        {"layout": "nchw"},
        GRAY,
    ],
    ids=str,
)
def test_a_payload_that_takes_pixels_is_no_exception(exported, tmp_path, fields):
    found = gd.verify(edited(exported("crop", "uint8-nhwc"), tmp_path, fields))

    assert found.failed_because.startswith(OTHER)


def test_the_command_says_so_in_one_sentence_and_exits_with_1(exported, tmp_path, capsys):
    answer = run(capsys, "verify", edited(exported("crop"), tmp_path, {"color": "bgr"}))

    assert answer.code == 1
    assert OTHER in answer.out + answer.err


def test_a_bundle_without_original_images_is_verified_as_before_and_says_so(exported, tmp_path, capsys):
    copy = tmp_path / "early"
    shutil.copytree(exported("crop"), copy)
    bundle = open_bundle(copy)
    write_golden(copy, *bundle.golden())
    files = tuple(describe_file(copy, record.path) for record in bundle.manifest.files)
    (copy / "manifest.json").write_bytes(encode(msgspec.structs.replace(bundle.manifest, files=files)))

    answer = run(capsys, "verify", copy)

    assert answer.code == 0
    assert "no original images in golden.npz, so its preprocessing is not checked" in " ".join(answer.out.split())
    assert gd.verify(copy).preprocessing is None


def test_golden_vectors_hold_small_original_images_of_different_sizes(exported):
    path = exported("crop")
    with np.load(path / GOLDEN, allow_pickle=False) as arrays:
        images = [arrays[name] for name in arrays.files if name.startswith("pixels_")]
        golden = arrays["input"]

    assert [image.dtype.name for image in images] == ["uint8"] * 4
    assert len({image.shape for image in images}) == 4
    assert any(image.shape[0] > image.shape[1] for image in images)
    assert max(max(image.shape) for image in images) <= 256
    assert np.array_equal(prepare(images, Preprocess(**BASES["crop"])), golden[:4])
    assert sum(image.size for image in images) < 1_000_000
    assert (path / GOLDEN).stat().st_size < 2_000_000


def rounded_otherwise(image, share, steps=1):
    """The image with that share of its values off by steps, up and down."""
    rng = np.random.default_rng(0)
    off = rng.choice([-steps, steps], image.shape) * (rng.random(image.shape) < share)
    return np.clip(image.astype(int) + off, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("share", "steps", "verdict"), [(0.005, 1, "passed"), (0.1, 1, "failed"), (0.001, 2, "failed"), (0, 1, "passed")]
)
def test_a_step_of_rounding_here_and_there_is_no_other_preprocessing(exported, monkeypatch, share, steps, verdict):
    bundle = open_bundle(exported("stretch"))
    real = preparation.prepare

    def otherwise(sources, spec):
        golden = real(sources, spec)
        white = spec.white / 255 / np.asarray(spec.std).reshape(-1, 1, 1)
        off = rounded_otherwise(np.full(golden.shape, 127, np.uint8), share, steps).astype(int) - 127
        return (golden + off * white).astype(np.float32)

    monkeypatch.setattr(preparation, "prepare", otherwise)

    assert preparation.check(bundle, bundle.golden()[0])[0].verdict == verdict


SETS = {
    "photographs of one size": [
        np.asarray(Image.open(path).convert("RGB").resize((300, 225))) for path in samples.photos()[:5]
    ],
    "tiny gray squares": [np.full((28, 28, 3), 9 * n, np.uint8) for n in range(16)],
    "one portrait": [np.zeros((90, 60, 3), np.uint8)],
    "single pixels": [np.zeros((1, 1, 3), np.uint8)] * 4,
    "strips": [np.zeros((2, 900, 3), np.uint8), np.zeros((900, 2, 3), np.uint8)],
    "one channel": [np.zeros((40, 30), np.uint8)] * 4,
}


@pytest.mark.parametrize("name", SETS)
def test_whatever_the_images_are_four_originals_come_of_them(name):
    spec = Preprocess(size=64)

    found = originals_of(SETS[name], spec)

    assert len(found) == 4
    assert all(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 for image in found)
    assert all(min(image.shape) >= 1 and max(image.shape) <= 256 for image in found)
    assert any((image != image[:, :, :1]).any() for image in found)  # the order of colours shows
    assert max(found[3].shape[:2]) < 64  # a letterbox that does not enlarge shows
    if name != "single pixels" and name != "strips":
        assert len({image.shape for image in found}) == 4
        assert any(image.shape[0] > image.shape[1] for image in found)


def test_a_damaged_image_gives_no_originals_and_the_export_its_usual_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")

    assert originals_of([tmp_path / "a.png"], Preprocess()) == ()

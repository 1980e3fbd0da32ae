"""INT8 requests that cannot succeed, as a user meets them: one sentence, the right exit code, nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ghostdeploy import samples
from tests.commands import assert_one_sentence, run


@pytest.fixture
def pictures():
    with np.load(samples.calibration_set(), allow_pickle=False) as archive:
        return archive["images"][:24]


def written(folder, images):
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


def export(capsys, tmp_path, *arguments):
    answer = run(capsys, "export", "-t", "openvino", "--int8", "-o", tmp_path / "out", *arguments)
    left = [] if not (tmp_path / "out").exists() else [p.name for p in (tmp_path / "out").iterdir()]
    assert left == []
    return answer


def test_a_model_without_calibration_images_is_told_the_option(capsys, tmp_path):
    assert_one_sentence(export(capsys, tmp_path, "ghostnet_050"), 2, "calibration images", "--calib")


def test_an_empty_calibration_folder_is_named(capsys, tmp_path):
    (tmp_path / "empty").mkdir()

    assert_one_sentence(export(capsys, tmp_path, "--calib", tmp_path / "empty"), 3, "empty", "no images")


def test_a_missing_calibration_folder_is_named(capsys, tmp_path):
    assert_one_sentence(export(capsys, tmp_path, "--calib", tmp_path / "nowhere"), 3, "nowhere", "does not exist")


def test_three_images_are_too_few(capsys, tmp_path, pictures):
    folder = written(tmp_path / "three", pictures[:3])

    assert_one_sentence(export(capsys, tmp_path, "--calib", folder), 3, "three", "3 distinct", "16")


def test_identical_images_are_told_from_a_set(capsys, tmp_path, pictures):
    folder = written(tmp_path / "same", [pictures[0]] * 20)

    assert_one_sentence(export(capsys, tmp_path, "--calib", folder), 3, "same", "20")


@pytest.mark.parametrize("option", ["--calib", "--data"])
def test_pixels_scaled_to_one_and_made_integers_are_refused_before_any_conversion(capsys, tmp_path, pictures, option):
    dark = np.rint(pictures / 255.0).astype(np.uint8)
    np.savez(tmp_path / "c.npz", images=np.tile(dark, (2, 1, 1, 1)), labels=np.arange(48) % 10)

    answer = export(capsys, tmp_path, option, tmp_path / "c.npz")

    assert_one_sentence(answer, 3, "c.npz", "between 0 and 1 of 255", "multiply them by 255")


def test_a_mean_of_pixels_to_255_is_told_the_value_to_give(capsys, tmp_path):
    answer = export(capsys, tmp_path, "--mean", "123.675,116.28,103.53")

    assert_one_sentence(answer, 2, "mean is 123.675,116.28,103.53", "--mean 0.485,0.456,0.406")


def test_a_corrupt_image_among_good_ones_is_named_and_the_way_out_too(capsys, tmp_path, pictures):
    folder = written(tmp_path / "mixed", pictures)
    (folder / "007.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")

    assert_one_sentence(export(capsys, tmp_path, "--calib", folder), 3, "007.png", "--skip-bad")


NETWORK = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
"""


@pytest.mark.slow
def test_skip_bad_goes_on_without_the_corrupt_image(capsys, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    folder = written(tmp_path / "mixed", pictures)
    (folder / "007.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    Image.new("RGB", (60_000, 1)).save(folder / "008.png")  # decodes; the resize would make gigabytes of it

    (tmp_path / "net.py").write_text(NETWORK)
    words = ["export", f"{tmp_path}/net.py:network", "-t", "openvino", "--int8", "--image-size", "32"]

    plan = run(capsys, *words, "--calib", folder, "--skip-bad", "--dry-run")
    assert plan.code == 0, plan.err
    answer = run(capsys, *words, "--calib", folder, "--skip-bad", "-o", tmp_path / "out", "--json")

    assert answer.code == 0, answer.err
    assert "only 38 distinct images" in answer.err
    record = answer.document["bundles"][0]["manifest"]["quantization"]["calibration"]
    assert record["count"] == 19  # the other 19 are held out to judge


@pytest.mark.parametrize(
    ("target", "precision", "option"),
    [("openvino", "--int8", "--calib"), ("openvino", "--int8", "--data"), ("openvino", "--fp16", "--data")],
)
def test_folders_are_mapped_by_name_and_damaged_images_named_before_a_converter_starts(
    capsys, tmp_path, pictures, target, precision, option
):
    labels = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    for index, name in enumerate(labels):  # the model's labels are not sorted
        written(tmp_path / "data" / name.replace("/", "-"), pictures[2 * index : 2 * index + 2])
    for name in ("dress/000.png", "bag/001.png"):
        cut = tmp_path / "data" / name
        cut.write_bytes(cut.read_bytes()[:-150])

    answer = run(capsys, "export", "-t", target, precision, option, tmp_path / "data", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "2 of 20 images", "bag/001.png", "dress/000.png")
    assert not [line for line in answer.err.splitlines() if line.startswith(("fold", "onnx"))]


def test_another_number_of_class_folders_is_refused(capsys, tmp_path, pictures):
    for name in "abc":
        written(tmp_path / "data" / name, pictures[:2])

    assert_one_sentence(export(capsys, tmp_path, "--data", tmp_path / "data"), 3, "3 class folders", "10 classes")


def test_an_unknown_architecture_is_told_the_known_ones(capsys, tmp_path):
    answer = run(capsys, "export", "-t", "tensorrt", "--sm", "87,999", "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, "87")


def test_activations_that_overflow_are_named(capsys, tmp_path):
    factory = tmp_path / "overflow.py"
    factory.write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)\n"
        "    def forward(self, x):\n"
        "        return self.b(torch.relu(self.a(x) * 1e38 * 1e38).clamp(max=1.0).nan_to_num(0).mean((2, 3)))\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return Net()\n"
    )
    answer = export(capsys, tmp_path, f"{factory}:build", "--calib", samples.calibration_set(), "--image-size", "32")

    assert answer.code == 3, answer.err
    assert_one_sentence(answer, 3, "NaN or infinit")


@pytest.mark.parametrize(
    "option", [["--sm", "86"], ["--version-compatible"], ["--hardware-compatibility", "ampere_plus"]]
)
def test_an_option_of_another_target_is_not_silently_without_effect(capsys, tmp_path, option):
    answer = run(capsys, "export", "-t", "openvino", *option, "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, option[0], "openvino", "-t tensorrt")

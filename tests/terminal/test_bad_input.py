"""Bad input from the command line: one clear sentence, the right exit code, nothing lost, no half bundle."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.models import create_model
from tests.commands import assert_one_sentence, run
from tests.signing import sealed, sign_again

TRACE = "a pickle ran code"
NETS = """
from torch import nn

def net():
    body = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(4, 1000), nn.ReLU(), nn.Linear(1000, 1000))
"""
"""A network of four megabytes."""


@pytest.fixture(scope="module")
def state():
    return create_model("ghostnet_050", num_classes=10).state_dict()


def saved(path, state):
    torch.save(state, path)
    return path


class Code:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def damage(kind, path, state):
    """Writes a damaged checkpoint."""
    if kind == "truncated":
        data = saved(path, state).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif kind == "pickle with code":
        saved(path, {"state_dict": state, "extra": Code(path.parent / TRACE)})
    elif kind == "one missing key":
        saved(path, {key: value for key, value in state.items() if key != "blocks.3.0.se.conv_reduce.bias"})
    elif kind == "one extra key":
        saved(path, state | {"blocks.3.0.se.extra.bias": torch.zeros(3)})
    elif kind == "NaN weight":
        broken = dict(state)
        broken["conv_head.weight"] = state["conv_head.weight"].clone()
        broken["conv_head.weight"][5, 3] = torch.nan
        saved(path, broken)
    elif kind == "not a checkpoint":
        path.write_text("hello")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ("does not exist",)),
        ("truncated", ("weights.pth",)),
        ("pickle with code", ("weights.pth", "refused")),
        ("one missing key", ("blocks.3.0.se.conv_reduce.bias",)),
        ("one extra key", ("blocks.3.0.se.extra.bias",)),
        ("NaN weight", ("conv_head.weight", "NaN")),
        ("not a checkpoint", ("weights.pth",)),
    ],
)
@pytest.mark.parametrize("model", [("ghostnet_050", "--num-classes", "10"), ()], ids=["named", "identified"])
def test_a_damaged_checkpoint_is_refused(kind, words, model, state, capsys, tmp_path):
    path = damage(kind, tmp_path / "weights.pth", state)

    answer = run(capsys, "export", *model, "--weights", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, *words)
    assert not (tmp_path / TRACE).exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_checkpoint_of_another_family_is_refused(state, capsys, tmp_path):
    path = saved(tmp_path / "weights.pth", state)

    answer = run(capsys, "export", "repghostnet_100", "--weights", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "repghostnet_100", "ghostnet")


def test_another_class_count_than_asked_for_is_refused_with_both_ways_out(state, capsys, tmp_path):
    path = saved(tmp_path / "weights.pth", state)

    answer = run(capsys, "export", "ghostnet_050", "--weights", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "10 classes", "1000", "--num-classes 10")


@pytest.mark.parametrize("option", ["--data", "--calib"])
def test_an_image_set_that_is_not_there_is_named(option, capsys, tmp_path):
    answer = run(capsys, "export", "-t", "onnx", option, tmp_path / "nowhere", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "nowhere", "does not exist")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_no_image_is_named(capsys, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "cat.jpg").write_text("not an image")

    answer = run(capsys, "export", "ghostnet_050", "-t", "onnx", "--calib", folder, "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "cat.jpg", "not an image")


def test_labels_that_do_not_fit_the_model_are_refused(capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.array([0, 1, 2, 10]))
    (tmp_path / "names.txt").write_text("a\nb\n")

    data = run(capsys, "export", "-t", "onnx", "--data", tmp_path / "d.npz", "-o", tmp_path / "out")
    names = run(capsys, "export", "-t", "onnx", "--labels", tmp_path / "names.txt", "-o", tmp_path / "out")

    assert_one_sentence(data, 3, "labels 0 to 10", "10 classes")
    assert_one_sentence(names, 3, "2 lines", "10 classes")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    folder.chmod(0)
    tmp_path.chmod(0o755)
    code = (
        "import os, sys\n"
        "from ghostdeploy.deploy.prove.images import open_images\n"
        "from ghostdeploy.errors import DataError\n"
        "if os.getuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    open_images(sys.argv[1])\n"
        "except DataError as error:\n    print(error.message)\n"
    )
    for parent in tmp_path.parents:
        if parent.owner() != "root" or parent.stat().st_mode & 0o001:
            continue
        parent.chmod(parent.stat().st_mode | 0o011)

    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)

    assert "permission denied" in done.stdout, done.stderr


def test_an_existing_bundle_is_kept_without_force(capsys, tmp_path):
    kept = tmp_path / "ghostnet_050-onnx-fp32"
    kept.mkdir()
    (kept / "manifest.json").write_text("precious")

    answer = run(capsys, "export", "-t", "onnx", "-o", tmp_path)

    assert_one_sentence(answer, 2, "exists already", "--force")
    assert (kept / "manifest.json").read_text() == "precious"


def test_a_folder_that_is_no_bundle_is_not_replaced_even_with_force(capsys, tmp_path):
    (tmp_path / "ghostnet_050-onnx-fp32").mkdir()
    (tmp_path / "ghostnet_050-onnx-fp32" / "thesis.tex").write_text("precious")

    answer = run(capsys, "export", "-t", "onnx", "-o", tmp_path, "--force")

    assert_one_sentence(answer, 2, "not a bundle")
    assert (tmp_path / "ghostnet_050-onnx-fp32" / "thesis.tex").exists()


@pytest.fixture
def net(tmp_path):
    """What `export` is told of a network of the user's own."""
    (tmp_path / "nets.py").write_text(NETS)
    return [f"{tmp_path}/nets.py:net", "--image-size", "32"]


@pytest.mark.parametrize("kilobytes", [64, 3000])
def test_a_file_size_limit_while_writing_is_one_sentence_and_leaves_nothing(kilobytes, net, tmp_path):
    words = shlex.join([sys.executable, "-m", "ghostdeploy", "export", *net, "-t", "openvino", "-o", f"{tmp_path}/out"])

    done = subprocess.run(["bash", "-c", f"ulimit -f {kilobytes}; exec {words}"], capture_output=True, text=True)

    assert done.returncode == 4, done.stderr
    assert "cannot be written" in done.stderr or "could not write" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_kill_9_in_the_middle_leaves_no_half_bundle_and_a_rerun_succeeds(net, tmp_path, capsys):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ghostdeploy", "export", *net, "-t", "onnx", "-o", out]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(out.glob(".*.tmp-*/program*.pt2")) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert process.returncode == -signal.SIGKILL
    assert [path for path in out.iterdir() if not path.name.startswith(".")] == []
    answer = run(capsys, "export", *net, "-t", "onnx", "-o", out)
    assert answer.code == 0, answer.err
    assert [path.name for path in out.iterdir()] == ["net-onnx-fp32"]


def wait_until(condition):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("command", ["verify", "inspect", "eval", "run"])
def test_a_bundle_that_is_not_there_is_exit_3(command, capsys, tmp_path):
    images = (samples.example_images()[0],) if command == "run" else ()

    answer = run(capsys, command, tmp_path / "nowhere", *images)

    assert_one_sentence(answer, 3, "nowhere", "does not exist")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_golden_vectors_of_odd_numbers_fail_without_a_word_of_numpys(value, precision, tiny_bundle, tmp_path, capsys):
    folder = shutil.copytree(tiny_bundle("onnx", precision), tmp_path / "copy")
    with np.load(folder / "golden.npz") as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    for name, array in arrays.items():
        if "input" not in name:
            array.flat[3] = value
    np.savez(folder / "golden.npz", **arrays)
    sign_again(folder)

    answer = run(capsys, "verify", folder)

    assert answer.code in (1, 3)
    assert all(line.startswith(("error: ", "hint: ")) for line in answer.err.splitlines())


@pytest.mark.parametrize(("field", "value"), [("std", 1e-45), ("mean", 3e38)])
def test_a_normalisation_that_leaves_float32_is_one_sentence(field, value, tiny_bundle, tmp_path, capsys):
    folder = shutil.copytree(tiny_bundle("onnx"), tmp_path / "copy")
    document = json.loads((folder / "manifest.json").read_text())
    document["preprocess"][field] = [value] * 3
    (folder / "manifest.json").write_text(sealed(document))
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(tmp_path / "image.png")

    answer = run(capsys, "run", folder, tmp_path / "image.png")

    assert_one_sentence(answer, 3)
    assert all(line.startswith(("error: ", "hint: ")) for line in answer.err.splitlines())

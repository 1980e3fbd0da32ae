"""Networks that an image cannot feed: several inputs, four channels; arrays of their inputs' names take its place."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.batches import Several, by_name, filled, joined
from tests.commands import assert_one_sentence, run
from tests.further import further

ENGINES = ("onnx", "openvino", "tflite", "ncnn")
CODE = """
import torch
from torch import nn
from torch.nn import functional as F


class Scaled(nn.Module):
    \"\"\"As PicoDet: boxes of an image, divided by the factor it was resized with.\"\"\"

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.deep = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, image, scale_factor):
        x = F.hardswish(self.deep(self.stem(image)))
        boxes = self.boxes(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4)
        return boxes / torch.cat([scale_factor, scale_factor], 1).unsqueeze(1), self.scores(x).flatten(2).sigmoid()


class Pair(nn.Module):
    \"\"\"A colour image and a gray one; a dictionary of nested tuples.\"\"\"

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(1, 6, 3, 2, 1)
        self.mix, self.score = nn.Conv2d(12, 8, 3, 1, 1), nn.Linear(8, 5)

    def forward(self, left, right):
        y = F.relu_(self.mix(torch.cat([F.relu6(self.left(left)), F.relu6(self.right(right))], 1)))
        v = y.mean((2, 3))
        return {"heads": (self.score(v), (y, v)), "peak": y.amax((2, 3))}


class Channels(nn.Sequential):
    def __init__(self, channels):
        layers = nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True)
        pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(*layers, nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 8, 1), nn.ReLU(True), *pool)
        self.append(nn.Linear(8, 6))


def seeded(make, *arguments):
    torch.manual_seed(0)
    return make(*arguments)


def scaled():
    return seeded(Scaled)


def pair():
    return seeded(Pair)


def four():
    return seeded(Channels, 4)


def image():
    return seeded(Channels, 3)
"""
SIZES = {
    "scaled": {"image": (3, 16, 24), "scale_factor": (2,)},
    "pair": {"left": (3, 24, 16), "right": (1, 24, 16)},
    "four": {"input": (4, 16, 24)},
}
OUTPUTS = {
    "scaled": ["output_0", "output_1"],
    "pair": ["heads_0", "heads_1_0", "heads_1_1", "peak"],
    "four": ["logits"],
}


def arrays(name, count=48):
    rng = np.random.default_rng(3)
    return {key: rng.uniform(0.5, 2, (count, *size)).astype(np.float32) for key, size in SIZES[name].items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with networks, and for each an .npz of its inputs."""
    (tmp_path / "nets.py").write_text(CODE)
    for name in SIZES:
        np.savez(tmp_path / f"{name}.npz", **arrays(name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(capsys, name, *options, targets=ENGINES, source=None):
    """Exports to several targets in one request, and returns the answer."""
    wanted = [word for target in targets for word in ("-t", target)]
    return run(capsys, "export", source or f"nets.py:{name}", *wanted, "--calib", f"{name}.npz", *options)


def outputs_of(path, name, count=3):
    with gd.load(path) as runtime:
        names = [spec["name"] for spec in runtime.info()["inputs"]]
        shapes = {spec["name"]: spec["layout"] for spec in runtime.info()["inputs"]}
        given = {key: array[:count] for key, array in arrays(name).items()}
        moved = {key: array.transpose(0, 2, 3, 1) if shapes[key] == "nhwc" else array for key, array in given.items()}
        assert names == list(SIZES[name])
        return runtime.infer({key: np.ascontiguousarray(array) for key, array in moved.items()})


@pytest.mark.parametrize("name", SIZES)
def test_float_bundles_of_every_engine_pass_and_give_what_the_network_gives(name, folder, capsys):
    assert export(capsys, name).code == 0

    found = [outputs_of(folder / f"build/{name}-{target}-fp32", name) for target in ENGINES]
    assert all(list(outputs) == OUTPUTS[name] for outputs in found)
    for outputs in found[1:]:
        for key, array in outputs.items():
            np.testing.assert_allclose(array, found[0][key], atol=1e-4 * np.abs(found[0][key]).max())


@pytest.mark.parametrize("name", further(SIZES, usual=["four"]))
def test_every_command_takes_such_bundles(name, folder, capsys):
    assert export(capsys, name, targets=("onnx", "tflite")).code == 0
    bundles = [folder / f"build/{name}-{target}-fp32" for target in ("onnx", "tflite")]

    assert run(capsys, "verify", *bundles).code == 0
    (manifest, _) = run(capsys, "inspect", *bundles, "--json").document
    assert manifest["manifest"]["preprocess"]["ready"] is True
    measured = run(capsys, "bench", *bundles, "--rounds", 8, "--json")
    assert measured.code == 0, measured.err
    answered = run(capsys, "run", bundles[0], "--inputs", f"{name}.npz", "-o", "out", "--json")
    assert [one["image"] for one in answered.document][:2] == [f"{name}.npz[0]", f"{name}.npz[1]"]
    with np.load(folder / "out/outputs.npz") as written:
        assert list(written) == OUTPUTS[name]
        assert len(written[OUTPUTS[name][0]]) == 48


@pytest.mark.slow
@pytest.mark.parametrize("name", further(SIZES, usual=["scaled"]))
def test_int8_is_calibrated_and_judged_by_rows_of_the_file(name, folder, capsys):
    answer = export(capsys, name, "--int8", "--json")

    assert answer.code == 0, answer.err
    for one in answer.document["bundles"]:
        manifest = one["manifest"]
        assert manifest["quantization"]["calibration"] | {"sha256": ""} == {"count": 24, "sha256": "", "held_out": 24}
        assert manifest["precision_achieved"]["int8_layers"] >= 2
        assert manifest["fidelity"]["count"] == 24
    bundles = [folder / f"build/{name}-{target}-int8" for target in ENGINES]
    assert run(capsys, "verify", *bundles).code == 0
    assert run(capsys, "diagnose", bundles[0], "--json").document["layers"]


@pytest.mark.parametrize("options", [("--batch", "dynamic"), ("--batch", "2")], ids=["dynamic", "two"])
@pytest.mark.parametrize("name", further(SIZES, usual=["pair"]))
def test_batches_are_free_or_fixed_as_asked(name, options, folder, capsys):
    assert export(capsys, name, *options, targets=("onnx", "openvino")).code == 0

    for target in ("onnx", "openvino"):
        path = folder / f"build/{name}-{target}-fp32"
        sizes = {spec.shape[0] for spec in gd.load(path)._interface.inputs}
        assert sizes == ({None} if "dynamic" in options else {2})
        one, five = outputs_of(path, name, 1), outputs_of(path, name, 5)
        for key, array in one.items():
            np.testing.assert_allclose(array[0], five[key][0], atol=1e-5 * np.abs(array).max())


@pytest.mark.parametrize("name", further(SIZES, usual=["scaled"]))
def test_half_precision_passes(name, folder, capsys):
    assert export(capsys, name, "--fp16", targets=("openvino", "ncnn")).code == 0


@pytest.mark.parametrize("name", further(SIZES, usual=["scaled"]))
def test_an_onnx_file_of_such_a_network_exports(name, folder, capsys):
    import torch

    space = {}
    exec(CODE, space)
    given = tuple(torch.from_numpy(array[:1]) for array in arrays(name).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own use of its own old names
        torch.onnx.export(space[name]().eval(), given, "mine.onnx", input_names=list(SIZES[name]), dynamo=True)

    assert_one_sentence(run(capsys, "export", "mine.onnx", "-t", "onnx"), 3, "--calib inputs.npz")
    assert export(capsys, name, targets=("onnx", "openvino"), source="mine.onnx").code == 0


def test_submitted_arrays_give_the_first_output(folder, capsys):
    assert export(capsys, "scaled", targets=("onnx",)).code == 0

    with gd.load(folder / "build/scaled-onnx-fp32") as runtime:
        given = {key: array[:3] for key, array in arrays("scaled").items()}
        future = runtime.submit(given)
        np.testing.assert_array_equal(future.result(), runtime.infer(given)["output_0"])


def changed(name, **others):
    return arrays(name) | others


@pytest.mark.parametrize(
    ("given", "options", "code", "words"),
    [
        (None, [], 3, ["the network takes 2 inputs (image, scale_factor)", "--calib inputs.npz"]),
        ({"image": arrays("scaled")["image"]}, [], 3, ["the network takes 2 inputs (image, scale_factor), an image"]),
        (changed("scaled", other=np.zeros((48, 2), np.float32)), [], 3, ["holds image, scale_factor, other"]),
        (changed("scaled", scale_factor=np.ones((48, 2))), [], 3, ["scale_factor of", "float64", "float32 (N, …)"]),
        (changed("scaled", scale_factor=np.ones((47, 2), np.float32)), [], 3, ["image 48, scale_factor 47"]),
        (changed("scaled", image=np.full((48, 3, 16, 24), np.nan, np.float32)), [], 3, ["NaN or infinity"]),
        (
            changed("scaled", image=np.ones((48, 5, 16, 24), np.float32)),
            [],
            3,
            ["3 channels, the ready inputs have 5"],
        ),
        (arrays("scaled", 3), [], 3, ["holds 3 rows, expected at least 4"]),
        (arrays("scaled", 20), ["--int8"], 3, ["holds 20 distinct rows, expected at least 32"]),
        (arrays("scaled"), ["--data", "scaled.npz"], 2, ["--data has no effect on the ready inputs"]),
        (arrays("scaled"), ["--image-size", "32"], 2, ["--size has no effect on the ready inputs"]),
        (arrays("scaled"), ["--input", "uint8-nhwc"], 2, ["--input uint8-nhwc has no effect"]),
    ],
    ids=["images", "one", "more", "double", "rows", "nan", "channels", "few", "few int8", "data", "size", "uint8"],
)
def test_what_does_not_fit_is_one_sentence(given, options, code, words, folder, capsys):
    if given is not None:
        np.savez("given.npz", **given)
    calib = [] if given is None else ["--calib", "given.npz"]

    answer = run(capsys, "export", "nets.py:scaled", "-t", "onnx", *calib, *options)

    assert_one_sentence(answer, code, *words)
    assert not list((folder / "build").glob("scaled*")) if (folder / "build").exists() else True


def test_four_channels_without_arrays_are_refused_with_the_way_to_give_them(folder, capsys):
    answer = run(capsys, "export", "nets.py:four", "-t", "onnx", "--image-size", "32")

    assert_one_sentence(answer, 3, "takes images of 4 channels", "--calib inputs.npz", "named input")


def test_commands_for_images_refuse_the_bundle_in_one_sentence(folder, capsys):
    assert export(capsys, "scaled", targets=("onnx",)).code == 0
    bundle = folder / "build/scaled-onnx-fp32"
    np.savez("images.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.zeros(4, int))
    np.savez("pair.npz", left=np.zeros((1, 3), np.float32))

    assert_one_sentence(run(capsys, "eval", bundle, "--data", "images.npz"), 2, "takes ready arrays")
    assert_one_sentence(run(capsys, "bench", bundle, "--against", "default"), 2, "takes ready arrays")
    assert_one_sentence(run(capsys, "run", bundle, "a.png", "--inputs", "pair.npz"), 2, "images or --inputs, got both")
    assert_one_sentence(run(capsys, "run", bundle, "--inputs", "pair.npz"), 3, "given left, expected image")
    assert_one_sentence(run(capsys, "run", bundle, "--inputs", "nets.py"), 3, "not a readable .npz file")


def test_the_plan_says_that_nothing_is_prepared(folder, capsys):
    answer = export(capsys, "pair", "--dry-run", targets=("onnx",))

    assert (answer.code, "ready arrays" in answer.out) == (0, True)


def test_a_file_of_images_stays_one(folder, capsys):
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)
    np.savez("images.npz", images=images)

    answer = run(capsys, "export", "nets.py:image", "-t", "onnx", "--calib", "images.npz", "--image-size", "16")

    assert answer.code == 0, answer.err
    assert not gd.load(folder / "build/image-onnx-fp32")._interface.preprocess.ready


def test_a_dependent_batch_is_found_with_several_inputs(folder, capsys):
    (folder / "mixed.py").write_text(
        "from torch import nn\n\nclass Mixed(nn.Module):\n"
        "    def forward(self, a, b):\n        return (a - a.mean(0, keepdim=True)) * b\n\n"
        "def mixed():\n    return Mixed()\n"
    )
    np.savez("mixed.npz", a=arrays("scaled")["image"], b=arrays("scaled")["image"])

    answer = run(capsys, "export", "mixed.py:mixed", "-t", "onnx", "--calib", "mixed.npz", "--batch", "2", "--json")

    assert "depends on the other images" in answer.document["bundles"][0]["manifest"]["batch_note"]


def test_several_arrays_are_cut_and_joined_like_one():
    both = Several({"a": np.arange(4.0), "b": np.arange(8.0).reshape(4, 2)})

    pieces = joined([both[:1], both[[3, 2]]])

    assert len(pieces) == 3
    np.testing.assert_array_equal(by_name(pieces, ["b", "a"])["a"], [0, 3, 2])
    np.testing.assert_array_equal(filled(pieces, 5).arrays["b"][:, 0], [0, 6, 4, 4, 4])

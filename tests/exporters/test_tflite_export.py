"""TFLite payloads of the trained samples: what operators they hold, how they take images, how large they are."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.models.blocks import GhostModule
from ghostdeploy.preprocess import prepare
from tests.commands import assert_one_sentence, run
from tests.exported import sample_bundle
from tests.further import further

MODELS = ("ghostnet_050", "g_ghost_regnetx_002")
PRECISIONS = ("fp32", "fp16", "hybrid", "int8")
SMALL = {"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"}
CUSTOM = 32  # BuiltinOperator of the schema

slow = pytest.mark.slow


class SmallGhostNet(nn.Module):
    """Stem, one Ghost module, classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.ghost = GhostModule(8, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.ghost(torch.relu(self.stem(x))).mean((2, 3)))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return SmallGhostNet().eval()


@pytest.fixture(params=further(MODELS, usual=MODELS[:1]))
def name(request):
    return request.param


@pytest.fixture(params=PRECISIONS)
def path(request, name, tmp_path_factory):
    return sample_bundle(tmp_path_factory, name, "tflite", precision=request.param)


def model_of(path):
    return tf.read((path / "model.tflite").read_bytes())


@slow
def test_the_graph_holds_builtin_operators_alone_and_moves_no_dimensions(path):
    model = model_of(path)

    assert [code.builtinCode for code in model.operatorCodes if code.builtinCode == CUSTOM or code.customCode] == []
    assert "TRANSPOSE" not in {kind for kind, _ in tf.operators(model)}


@slow
def test_images_are_taken_as_nhwc_and_all_gates_are_passed(path):
    manifest = open_bundle(path).manifest

    spec = manifest.inputs[0]
    assert (spec.dtype, spec.shape, spec.layout) == ("float32", (1, 64, 64, 3), "nhwc")
    assert manifest.verdict == "passed"
    with gd.load(path, threads=1) as runtime:
        batch = prepare([samples.example_images()[0]] * 2, manifest.preprocess)
        assert batch.shape == (2, 64, 64, 3)
        assert runtime(batch).shape == (2, 10)


@slow
def test_layers_are_called_by_their_pytorch_modules(path, name):
    modules = dict(gd.create_model(name, num_classes=10).named_modules())
    model = model_of(path)
    sources = {int(op.outputs[0]): int(op.inputs[0]) for kind, op in tf.operators(model) if kind == "DEQUANTIZE"}
    weighted = [op for kind, op in tf.operators(model) if kind in tf.WEIGHTED]
    names = [tf.module_name(model, op, sources.get(int(op.inputs[1]), int(op.inputs[1]))) for op in weighted]

    assert len(set(names)) == len(names) > 50
    assert {name.partition("#")[0] for name in names} <= modules.keys()  # halves of a split layer are numbered


@slow
def test_the_account_of_the_payload_counts_every_layer(path):
    manifest = open_bundle(path).manifest
    achieved, layers = manifest.precision_achieved, sum(kind in tf.WEIGHTED for kind, _ in tf.operators(model_of(path)))

    assert achieved.int8_layers + achieved.float_layers == layers
    assert (achieved.float_layers == 0) == (manifest.precision == "int8")
    assert (achieved.int8_layers > 0) == (manifest.precision in ("int8", "hybrid"))


@slow
@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.53), ("hybrid", 0.85), ("int8", 0.28)])
def test_the_file_is_much_smaller_than_the_float_one(name, precision, share, tmp_path_factory):
    whole, small = (
        (sample_bundle(tmp_path_factory, name, "tflite", precision=one) / "model.tflite").stat().st_size
        for one in ("fp32", precision)
    )

    assert small <= share * whole


@slow
def test_integer_inputs_and_outputs_are_fed_and_answer_in_float(small, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)

    def exported(folder, **options):
        wanted = {"target": "tflite", "precision": "int8", "name": "small", "preprocess": SMALL, "calibration": images}
        return gd.export(small, out=tmp_path / folder, **wanted, **options).path

    plain, path = exported("plain"), exported("integers", int8_io=True)
    model = model_of(path)
    graph = model.subgraphs[0]

    assert {tf.TYPES[tf.tensor(model, i).type] for i in (*graph.inputs, *graph.outputs)} == {"int8"}
    assert not {"QUANTIZE", "DEQUANTIZE"} & {kind for kind, _ in tf.operators(model)}
    batch = open_bundle(path).golden()[0]["input"]
    with gd.load(path, threads=1) as ours, gd.load(plain, threads=1) as theirs:
        assert batch.dtype == np.float32
        assert np.array_equal(ours(batch), theirs(batch))


@slow
def test_a_payload_for_three_images_takes_any_number(small, tmp_path):
    bundle = gd.export(small, target="tflite", batch=3, name="small", out=tmp_path, preprocess=SMALL)
    batch = np.random.default_rng(0).normal(size=(5, 16, 16, 3)).astype(np.float32)

    assert bundle.manifest.inputs[0].shape == (3, 16, 16, 3)
    assert "TRANSPOSE" not in {kind for kind, _ in tf.operators(model_of(bundle.path))}
    with gd.load(bundle.path, threads=1) as runtime, torch.inference_mode():
        wanted = small(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())).numpy()
        assert np.allclose(runtime(batch), wanted, atol=1e-4)


class Twice(SmallGhostNet):
    def forward(self, x):
        y = super().forward(x)
        return {"a": y, "image": x, "b": y, "row": y.view(-1, 10, 1), "wide": torch.nn.functional.pad(y, (1, 1))}


@slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_returned_twice_or_as_it_came_or_is_read_again_is_an_output_of_its_own(precision, tmp_path):
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)
    options = {"calibration": images} if precision == "int8" else {}
    network = Twice().eval()

    path = gd.export(
        network, target="tflite", precision=precision, name="twice", out=tmp_path, preprocess=SMALL, **options
    ).path

    batch = prepare(list(images[:3]), open_bundle(path).manifest.preprocess)
    with gd.load(path, threads=1) as runtime:
        found = runtime.infer({"input": batch})
    assert list(found) == ["a", "image", "b", "row", "wide"]
    assert np.array_equal(found["a"], found["b"])
    assert np.array_equal(found["a"], found["row"][..., 0])
    assert np.array_equal(found["a"], found["wide"][:, 1:-1])
    assert np.allclose(found["image"].transpose(0, 2, 3, 1), batch, atol=1e-5 if precision == "fp32" else 0.05)


@slow
def test_pixels_are_normalised_in_the_graph(small, tmp_path):
    path = gd.export(small, target="tflite", name="small", out=tmp_path, preprocess=SMALL, input="uint8-nhwc").path
    manifest = open_bundle(path).manifest

    spec = manifest.inputs[0]
    assert (spec.dtype, spec.shape, manifest.verdict) == ("uint8", (1, 16, 16, 3), "passed")
    assert "TRANSPOSE" not in {kind for kind, _ in tf.operators(model_of(path))}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-t", "tflite", "--batch", "dynamic"), ("fixed batch", "--batch")),
        (("-t", "tflite", "--int8-io"), ("--int8-io", "--int8")),
        (("-t", "onnx", "--int8", "--int8-io"), ("--int8-io", "-t tflite")),
    ],
    ids=["dynamic batch", "integers without INT8", "another target"],
)
def test_what_makes_no_sense_is_a_usage_error(options, words, capsys, tmp_path):
    answer = run(capsys, "export", *options, "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, *words)


UNCOVERED = """
import torch
from torch import nn

class Odd(nn.Module):
    def forward(self, x):
        return torch.cummax(x, dim=1).values + torch.cummin(x, dim=1).values

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    net.add_module("odd", Odd())
    return net.eval()
"""


@slow
def test_an_operation_without_builtin_operator_is_named_with_its_module(capsys, tmp_path):
    (tmp_path / "net.py").write_text(UNCOVERED)

    answer = run(
        capsys, "export", f"{tmp_path / 'net.py'}:build", "-t", "tflite", "--image-size", "16", "-o", tmp_path / "out"
    )

    assert_one_sentence(answer, 5, "no builtin TFLite operator", "cummax in odd", "cummin in odd")


UNPREPARED = """
import torch
from torch import nn
from torch.nn import functional as F

class Sorted(nn.Module):
    def forward(self, x):
        return x.topk(3, -1).values

class Folded(nn.Module):
    def forward(self, x):
        return F.fold(F.unfold(x, 2, stride=2), 16, 2, stride=2).flatten(1)

def net(odd):
    torch.manual_seed(0)
    return nn.Sequential(odd, nn.Flatten(), nn.LazyLinear(10)).eval()

def build():
    made = net(ODD())
    made(torch.zeros(1, 3, 16, 16))
    return made
"""


@slow
@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ("Sorted", ("no kernel for STABLEHLO_SORT", "topk in 0")),
        ("Folded", ("cannot prepare STABLEHLO_SCATTER", "col2im in 0", "Only update, Add")),
    ],
)
def test_a_file_that_litert_does_not_prepare_is_the_converters_failure(odd, words, capsys, tmp_path):
    (tmp_path / "net.py").write_text(UNPREPARED.replace("ODD", odd))

    answer = run(
        capsys, "export", f"{tmp_path / 'net.py'}:build", "-t", "tflite", "--image-size", "16", "-o", tmp_path / "out"
    )

    assert_one_sentence(answer, 5, *words, "its log is")
    assert ".tmp-" not in answer.err


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "Didn't find op for builtin opcode 'ADD' version '9'. An older …",
            "LiteRT has no kernel for ADD of version 9",
        ),
        ("dims\nare odd.Node number 3 (MUL) failed to prepare.", "LiteRT cannot prepare MUL: dims are odd"),
        ("Node number 3 (MUL) failed to prepare.", "LiteRT cannot prepare MUL: it gives no reason"),
        ("The model is\nbroken.\n", "LiteRT refuses the converted graph: The model is broken"),
    ],
)
def test_what_litert_says_becomes_one_sentence(said, sentence):
    from ghostdeploy.exporters.tflite.payload import explained

    assert explained(said) == sentence


def test_a_payload_with_one_flipped_bit_is_refused_before_it_is_parsed(tiny_bundle, tmp_path, capsys):
    copy = shutil.copytree(tiny_bundle("tflite"), tmp_path / "copy")
    data = bytearray((copy / "model.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.tflite").write_bytes(data)

    assert_one_sentence(run(capsys, "verify", copy), 3, "model.tflite", "SHA-256")


@slow
def test_a_nearest_resize_by_no_whole_factor_reads_what_pytorch_reads(tmp_path):
    class Gated(nn.Module):
        """A gate at a third of the size: 3 → 7, as in GhostNetV2 at 224 px."""

        def __init__(self):
            super().__init__()
            self.down, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8 * 49, 10)

        def forward(self, x):
            y = self.down(x)
            gate = nn.functional.interpolate(nn.functional.avg_pool2d(y, 2), size=y.shape[-2:], mode="nearest")
            return self.head((y * gate.sigmoid()).flatten(1))

    torch.manual_seed(0)
    bundle = gd.export(Gated().eval(), target="tflite", name="gated", out=tmp_path, preprocess={"size": 14})

    assert bundle.manifest.parity.verdict == "passed"
    assert "RESIZE_NEAREST_NEIGHBOR" in {kind for kind, _ in tf.operators(model_of(bundle.path))}

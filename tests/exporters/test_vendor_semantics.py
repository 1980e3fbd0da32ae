"""Operations that engines read differently, exported and held against PyTorch; and what a refusal says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import ghostdeploy as gd
from ghostdeploy.convert.base import untranslated
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.exporters.openvino.reason import refusal
from tests.commands import assert_one_sentence, run

functional = nn.functional
TARGETS = ("onnx", "openvino", "tflite")
SIZE = 24

slow = pytest.mark.slow


class Everything(nn.Module):
    """Branches of one network, each with an operation that some engine does otherwise or not at all."""

    def __init__(self):
        super().__init__()
        self.circular = nn.Conv2d(3, 8, 3, 2, 1, padding_mode="circular")
        self.reflect = nn.Conv2d(8, 8, 3, 1, 1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1)
        self.grouped = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1, groups=4)
        self.odd = nn.ConvTranspose2d(8, 4, (3, 4), (2, 1), (1, 0), (1, 0))
        self.average = nn.AvgPool2d(3, 2, 1, ceil_mode=True)
        self.divided = nn.AvgPool2d(3, 2, 1, divisor_override=7)
        self.dropped = nn.MaxPool2d(2, 4, 1, ceil_mode=True)
        self.largest = nn.AdaptiveMaxPool2d((5, 7))

    def forward(self, x):
        y = self.circular(x)  # (1, 8, 12, 12)
        wh = y.reshape(len(x), 2, 4, 12, 12).permute(0, 1, 3, 4, 2).sigmoid()
        masked = y.clone()
        masked[masked > 0.1] = -1.5
        return {
            "masked": masked,
            "decoded": (wh * 2) ** 2 + (wh + 0.1) ** 0.5,
            "reflect": self.reflect(y),
            "up": self.up(y),
            "grouped": self.grouped(y),
            "odd": self.odd(y),
            "average": self.average(y),
            "divided": self.divided(y),
            "dropped": self.dropped(functional.pad(y, (0, 1, 0, 1))),
            "largest": self.largest(y),
            "antialiased": functional.interpolate(y, size=(7, 7), mode="bilinear", antialias=True),
            "nearest": functional.interpolate(y, scale_factor=1.7),
            "by_size": functional.interpolate(y, size=(25, 5)),
            "exact": functional.interpolate(y, size=(25, 5), mode="nearest-exact"),
            "by_factor": functional.interpolate(y, scale_factor=1.7, mode="bilinear"),
            "corners": functional.interpolate(y, size=(25, 5), mode="bilinear", align_corners=True),
        }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    module = Everything().eval()
    config = ExportConfig(targets=TARGETS, out=tmp_path_factory.mktemp("semantics"), preprocess={"size": SIZE})
    return module, run_export(resolve_model(module, config), config, name="everything").bundles


@slow
def test_every_operation_gives_what_pytorch_gives_on_every_target(exported):
    module, bundles = exported
    image = np.random.default_rng(1).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    with torch.inference_mode():
        wanted = {name: value.numpy() for name, value in module(torch.from_numpy(image)).items()}
    for bundle in bundles:
        assert bundle.manifest.parity.verdict == "passed", bundle.path
        with gd.load(bundle.path, threads=1) as runtime:
            spec = bundle.manifest.inputs[0]
            given = image if spec.layout == "nchw" else np.ascontiguousarray(image.transpose(0, 2, 3, 1))
            got = runtime.infer({spec.name: given})
        for name, reference in wanted.items():
            error = np.abs(got[name] - reference).max() / np.abs(reference).max()
            assert error < 1e-4, (bundle.path.name, name, error)


REFUSED = """
import torch
from torch import nn

class Power(nn.Module):
    def forward(self, x):
        return (x.view(len(x), 2, 4, 8, 8).abs() + 1.0) ** 1.7

class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose3d(2, 3, 3, 2, 1, output_padding=1)

    def forward(self, x):
        return self.up(x.view(len(x), 2, 4, 8, 8))

class Picked(nn.Module):
    def forward(self, x):
        return torch.cat((x[x > 0], x.nonzero().flatten().float())).mean().expand(len(x), 1)

def picked():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1))
    net.add_module("mask", Picked())
    return net.eval()

def power():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1))
    net.add_module("odd", Power())
    return net.eval()

def volume():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1))
    net.add_module("deep", Volume())
    return net.eval()
"""


@slow
@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("power", ("tfl.pow", "pow in odd")),
        ("volume", ("CONVOLUTION", "deep")),
        ("picked", ("sizes depend on image values", "index in mask", "nonzero in mask", "torch.where")),
    ],
)
def test_what_litert_cannot_do_is_named_with_operator_and_module(factory, words, capsys, tmp_path):
    (tmp_path / "net.py").write_text(REFUSED)

    answer = run(
        capsys, "export", f"{tmp_path}/net.py:{factory}", "-t", "tflite", "--image-size", 16, "-o", tmp_path / "out"
    )

    assert_one_sentence(answer, 5, "tflite", *words)
    assert "_assert" not in answer.err


def graph_of(*nodes, constants=()):
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y"))
    values = [numpy_helper.from_array(array, name) for name, array in constants]
    graph = helper.make_graph(list(nodes), "g", [given], [made], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


def said_by_openvino(model, tmp_path):
    import openvino

    core = openvino.Core()
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(RuntimeError) as caught:
        core.read_model(tmp_path / "m.onnx")
    return str(refusal(caught.value, model, core))


def test_openvinos_own_reason_is_told_with_the_layer_beside_it(tmp_path):
    model = graph_of(
        helper.make_node("Pad", ["x", "p"], ["z"], name="node_Pad_1", mode="wrap"),
        helper.make_node("Conv", ["z", "w"], ["y"], name="stages.0.conv"),
        constants=[("p", np.array([0, 0, 1, 1, 0, 0, 1, 1])), ("w", np.ones((3, 3, 3, 3), np.float32))],
    )

    said = said_by_openvino(model, tmp_path)

    assert said == "OpenVINO cannot convert Pad before stages.0.conv: Unsupported padding mode: [wrap]"


def test_the_operation_that_openvino_misread_is_named_before_the_one_that_failed_for_it(tmp_path):
    model = graph_of(
        helper.make_node("Unsqueeze", ["x", "last"], ["a"]),
        helper.make_node("DFT", ["a"], ["b"], name="node_DFT_1", axis=3, onesided=1),
        helper.make_node("ReduceL2", ["b", "last"], ["c"], keepdims=0),
        helper.make_node("ReduceMean", ["c", "sides"], ["d"], keepdims=0),
        helper.make_node("Gemm", ["d", "w"], ["y"], name="head", transB=1),
        constants=[
            ("last", np.array([-1])),
            ("sides", np.array([2, 3])),
            ("w", np.ones((5, 3), np.float32)),
        ],
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")

    said = said_by_openvino(onnx.shape_inference.infer_shapes(model, strict_mode=True), tmp_path)

    assert said.startswith("OpenVINO misreads DFT before head: it infers shape [1, 3, 8, 5, 1, 2], ONNX [1, ")
    assert "; after it, OpenVINO cannot convert Gemm in head: Incompatible MatMul" in said


def test_an_operation_that_openvino_does_not_know_is_named(tmp_path):
    model = graph_of(
        helper.make_node("Conv", ["x", "w"], ["z"], name="stem"),
        helper.make_node("Det", ["z"], ["y"], name="node_Det_1"),
        constants=[("w", np.ones((3, 3, 1, 1), np.float32))],
    )

    assert said_by_openvino(model, tmp_path) == "OpenVINO has no operation Det, after stem"


def test_an_error_that_says_nothing_known_goes_on_as_it_came():
    assert refusal(RuntimeError("Exception from src/inference/src/cpp/core.cpp:84:"), graph_of()) is None


def test_the_operation_at_which_the_onnx_exporter_stopped_is_found_behind_its_advice():
    first = RuntimeError("No ONNX function found for <OpOverload(op='aten.cummax', overload='default')>. Failure")
    second = RuntimeError("Error when translating node %cummax : [num_users=1] = call_function[target=torch.ops]")
    third = RuntimeError("Failed to convert the exported program to an ONNX model. Next steps:")
    third.__cause__, second.__cause__ = second, first

    assert untranslated(third) == ("aten.cummax", "cummax")
    assert untranslated(first) is None

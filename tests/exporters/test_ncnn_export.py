"""ncnn files: what pnnx makes of folded graphs, what it must not make of them, and what is stored in fewer bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.convert.base import RefusedError
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.errors import ExportFailed
from ghostdeploy.exporters.ncnn import pnnx
from ghostdeploy.exporters.ncnn.weights import Arrays, in_half, unpack
from ghostdeploy.runtimes.ncnn import param
from tests import quantized
from tests.bundles import Tiny, network, writer_of
from tests.conftest import require
from tests.families import FAMILIES
from tests.further import further

SIZE = 32


@pytest.fixture(autouse=True)
def installed():
    require("ncnn")


class Head(nn.Module):
    """A small network with one operation at its end."""

    def __init__(self, last):
        super().__init__()
        self.stem, self.maps = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)
        self.last = last

    def forward(self, x):
        return self.last(self.maps(torch.relu(self.stem(x))))


def exported(last, folder, **options):
    torch.manual_seed(0)
    return gd.export(Head(last).eval(), target="ncnn", name="head", out=folder, preprocess={"size": SIZE}, **options)


def written(folder, precision="fp32", *, tiny=None, change=None):
    """Returns layers and arrays of the tiny network's file."""
    tiny = tiny or Tiny()
    model = quantized.named(network(tiny))
    if change is not None:
        change(model)
    if precision == "int8":
        model = quantized.quantize(model, tiny, targets.find("ncnn").recipe)
    folder.mkdir(exist_ok=True)
    done = writer_of("ncnn")(model, folder, precision, tiny)
    layers = param.parse((folder / "model.param").read_text())
    return model, layers, unpack(layers, (folder / "model.bin").read_bytes()), done


def weights_of(layers, arrays):
    return {one.name: found.weights for one, found in zip(layers, arrays, strict=True) if found.weights is not None}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*random weights")
@pytest.mark.parametrize("name", further(FAMILIES, usual=("ghostnetv2_100",)))
def test_the_family_is_exported_and_computes_what_pytorch_does(name, tmp_path):
    network = gd.create_model(name, num_classes=10).eval()

    bundle = gd.export(network, target="ncnn", name=name, out=tmp_path, preprocess={"size": 64})

    assert bundle.manifest.parity.verdict == "passed"
    layers = param.parse(bundle.payload.read_text())
    modules = {name for name, _ in network.named_modules()}
    named = [layer for layer in layers if layer.kind in ("Convolution", "ConvolutionDepthWise")]
    assert len(named) > 20 or "vgg" in name
    assert sum(layer.name.partition("#")[0] in modules for layer in named) > 0.5 * len(named)


def test_several_outputs_of_several_shapes_come_as_pytorch_gives_them(tmp_path):
    functional = nn.functional

    bundle = exported(
        lambda y: {
            "maps": y,
            "scores": y.mean((2, 3)),
            "vectors": y.mean((2, 3), keepdim=True),
            "last": y.permute(0, 2, 3, 1),
            "larger": functional.interpolate(y, scale_factor=2.0, mode="bilinear"),
            "attention": y.flatten(2).transpose(1, 2) @ y.flatten(2),
        },
        tmp_path,
    )

    assert bundle.manifest.verdict == "passed"
    inputs, golden = bundle.golden()
    with gd.load(bundle.path, threads=1) as runtime:
        found = runtime.infer(inputs)
    for name, array in golden.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_largest_values_of_maps_are_pools(tmp_path):
    bundle = exported(
        lambda y: {
            "flat": y.amax((2, 3)),
            "kept": y.amax((-1, -2), keepdim=True),
            "sum": y.amax((2, 3)) + y.mean((2, 3)),
        },
        tmp_path,
    )

    assert bundle.manifest.parity.verdict == "passed"


@pytest.mark.parametrize(
    ("last", "lacking"),
    [
        (lambda y: y[:, :1] > y[:, 1:2], "torch.gt"),
        (lambda y: y.argmax(1), "ArgMax"),
        (lambda y: y.amax(1, keepdim=True), "ReduceMax"),
    ],
    ids=["a mask", "classes", "the largest channel"],
)
def test_what_ncnn_has_no_layer_for_is_named(last, lacking, tmp_path):
    with pytest.raises(ExportFailed, match=f"has no layer for {lacking}"):
        exported(last, tmp_path)

    assert not list(tmp_path.glob("*ncnn*/*"))


def test_what_pnnx_gets_wrong_does_not_pass(tmp_path):
    with pytest.raises(gd.GhostDeployError, match="failed its gates"):
        exported(lambda y: nn.functional.layer_norm(y, y.shape[1:]), tmp_path)


def test_a_program_that_dies_is_told_with_its_last_words():
    with pytest.raises(RefusedError, match="pnnx wrote no ncnn file, exit code"):
        pnnx.convert(lambda path: path.write_bytes(b"no graph"), ".onnx", [(1, 3, 8, 8)])


def test_an_input_of_integers_is_refused(tmp_path):
    def change(model):
        model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
        model.graph.node.insert(0, onnx.helper.make_node("Cast", ["side"], ["floats"], to=onnx.TensorProto.FLOAT))
        for node in model.graph.node[1:]:
            node.input[:] = ["floats" if name == "side" else name for name in node.input]

    with pytest.raises(RefusedError, match="side is int64"):
        written(tmp_path, tiny=Tiny(side=True), change=change)


def test_the_same_graph_gives_the_same_two_files_and_no_others(tmp_path):
    for name in ("a", "b"):
        written(tmp_path / name)

    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    assert set(files[0]) == {"model.param", "model.bin"}


@pytest.mark.parametrize("fields", [{}, {"layout": "nhwc", "dtype": "uint8"}, {"size": 17}, {"batch": 3}], ids=str)
def test_the_file_says_what_an_image_is(fields, tmp_path):
    tiny = Tiny(**fields)

    _, layers, _, done = written(tmp_path, tiny=tiny)

    assert (param.shape_of(layers[0]), param.dtype_of(layers[0])) == (tiny.inputs[0].shape[1:], tiny.inputs[0].dtype)
    assert [(s.name, s.dtype, s.shape) for s in done.ports.inputs] == [(s.name, s.dtype, s.shape) for s in tiny.inputs]


def test_layers_are_called_like_those_of_the_graph(tmp_path):
    model, layers, _, _ = written(tmp_path)

    assert [layer.name for layer in layers if layer.kind != "Input" and layer.kind != "Pooling"] == [
        node.name for node in OnnxGraph(model).layers()
    ]


def test_half_precision_rounds_small_weights_and_leaves_wide_layers_alone(tmp_path):
    small = np.full((8, 3, 3, 3), 3e-6, np.float32)

    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == "first":
                tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))
            if tensor.name == "classifier":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1e5, tensor.name))

    _, layers, arrays, done = written(tmp_path, "fp16", change=change)

    found = weights_of(layers, arrays)
    assert {name: one.dtype.name for name, one in found.items()} == {
        "first": "float16",
        "depthwise": "float16",
        "classifier": "float32",
    }
    np.testing.assert_array_equal(found["first"], small.astype(np.float16).reshape(-1))
    assert "2 float16, 1 float32" in done.precision.how


def test_int8_is_that_of_the_graph_and_depthwise_layers_are_float(tmp_path):
    graph, layers, arrays, done = written(tmp_path, "int8")

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    found = {one.name: each for one, each in zip(layers, arrays, strict=True)}
    makers = {node.output[0]: node for node in graph.graph.node}
    for name in ("first", "classifier"):
        node = next(node for node in graph.graph.node if node.name == name)
        data, weights = makers[node.input[0]], makers[node.input[1]]
        np.testing.assert_array_equal(found[name].weights, constants[weights.input[0]].reshape(-1))
        np.testing.assert_allclose(found[name].plain[-2], 1 / constants[weights.input[1]], rtol=1e-6)
        np.testing.assert_allclose(found[name].plain[-1], 1 / constants[data.input[1]], rtol=1e-6)
    assert found["depthwise"].weights.dtype == np.float32
    assert (done.precision.int8_layers, done.precision.float_layers) == (2, 1)
    assert done.precision.how.startswith("model.param holds 1 Convolution int8, 1 ConvolutionDepthWise float")


def test_an_onnx_file_is_the_model(tmp_path):
    file = tmp_path / "net.onnx"
    onnx.save(network(Tiny()), file)

    bundle = gd.export(file, target="ncnn", out=tmp_path / "out", preprocess={"size": 16})

    assert (bundle.manifest.verdict, bundle.manifest.parity.verdict) == ("passed", "passed")


def test_weights_of_an_unknown_layer_are_not_stored_smaller():
    odd = param.Layer("Gemm", "odd", (), ("y",), {})

    with pytest.raises(RefusedError, match="cannot store smaller, one of Gemm"):
        unpack([odd], b"\0" * 8)


def test_an_array_is_filled_up_to_four_bytes():
    codes = Arrays(np.arange(5, dtype=np.int8))

    assert len(codes.packed()) == 4 + 8
    assert len(in_half([Arrays(np.ones(3, np.float32))])[0].packed()) == 4 + 8


class Along(nn.Module):
    """A reduction along one axis."""

    def __init__(self, name, axis, keep):
        super().__init__()
        self.name, self.axis, self.keep = name, axis, keep

    def forward(self, x):
        y = getattr(torch, self.name)(x, self.axis, keepdim=self.keep)
        return y * 2 + 1


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(("name", "axis"), [("sum", 1), ("mean", 2), ("sum", -1)])
def test_a_reduction_along_one_axis_keeps_its_axis(name, axis, keep, tmp_path):
    """pnnx writes an empty list of axes for one that is alone."""
    assert exported(Along(name, axis, keep), tmp_path, task="raw").manifest.verdict == "passed"

"""Layers are called like PyTorch modules, and what is INT8 is read from what was built and compiled."""

from __future__ import annotations

import logging
import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.convert.attestation import Layer, achieved, float_layer_names, int8_mac_share
from ghostdeploy.convert.base import ExportJob
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.convert.graph.precision import quantized_layers
from ghostdeploy.convert.graph.precision import read_precision as read_onnx
from ghostdeploy.convert.graph.simplify import dotted_names, module_of, name_layers
from ghostdeploy.deploy.fold.program import PixelInput, save_program
from ghostdeploy.exporters.onnx.exporter import OnnxExporter
from ghostdeploy.exporters.openvino.exporter import OpenVINOExporter
from ghostdeploy.layer_costs import macs
from ghostdeploy.preprocess import Preprocess
from tests.kernels import one_layer

MODULES = (
    "blocks",
    "blocks.3",
    "blocks.3.0",
    "blocks.3.0.conv",
    "blocks.3.0.conv.1",
    "conv",
    "conv_1",
    "a.b_c",
    "a_b.c",
)


@pytest.mark.parametrize(
    ("weight", "module"),
    [
        ("blocks_3_0_conv_weight", "blocks.3.0.conv"),
        ("blocks.3.0.conv.weight", "blocks.3.0.conv"),
        ("blocks_3_0_conv_1_weight", "blocks.3.0.conv.1"),
        ("blocks_3_0_conv_weight_1", "blocks.3.0.conv"),
        ("network_blocks_3_0_conv_weight", "blocks.3.0.conv"),
        ("network.blocks.3.0.conv.weight", "blocks.3.0.conv"),
        ("conv_1_weight", "conv_1"),
        ("conv_weight_1", "conv"),
        ("a_b_c_weight", "a_b_c"),
        ("elsewhere_weight", "elsewhere"),
        ("elsewhere.deep.weight_2", "elsewhere.deep"),
        ("val_12", None),
        ("weight", None),
    ],
)
def test_a_weight_names_its_module(weight, module):
    assert module_of(weight, dotted_names(MODULES)) == module


def test_a_module_called_network_is_found_behind_the_pixel_input():
    assert module_of("network_network_conv_weight", dotted_names(("network", "network.conv"))) == "network.conv"
    assert module_of("network_conv_weight", dotted_names(("network", "network.conv"))) == "network.conv"


def test_layers_get_unique_module_names_and_other_nodes_keep_theirs():
    weight = numpy_helper.from_array(np.zeros((3, 3, 1, 1), np.float32), "stem_conv_weight")
    odd = numpy_helper.from_array(np.zeros((3, 3, 1, 1), np.float32), "val_3")
    nodes = [
        helper.make_node("Conv", ["x", "stem_conv_weight"], ["a"], "node_conv2d"),
        helper.make_node("Relu", ["a"], ["b"], "stem.conv#3"),
        helper.make_node("Conv", ["b", "stem_conv_weight"], ["c"], "node_conv2d_1"),
        helper.make_node("Conv", ["c", "stem_conv_weight"], ["d"], "node_conv2d_2"),
        helper.make_node("Conv", ["d", "val_3"], ["e"], "node_conv2d_3"),
        helper.make_node("MatMul", ["e", "d"], ["y"], "node_matmul"),
    ]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4])  # noqa: E731
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], [weight, odd])

    name_layers(graph, ("stem", "stem.conv"))

    names = [node.name for node in graph.node]
    assert names == ["stem.conv", "stem.conv#3", "stem.conv#2", "stem.conv#4", "node_conv2d_3", "node_matmul"]


class Net(torch.nn.Module):
    """A stem, a depthwise convolution in a block, a pointwise one, a transposed one, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.block = torch.nn.Sequential(torch.nn.Conv2d(32, 32, 3, padding=1, groups=32), torch.nn.ReLU())
        self.point = torch.nn.Conv2d(32, 64, 1)
        self.up = torch.nn.ConvTranspose2d(64, 16, 2, stride=2)
        self.fc = torch.nn.Linear(16, 10)

    def forward(self, x):
        x = self.point(self.block(torch.relu(self.stem(x))))
        return self.fc(torch.relu(self.up(torch.relu(x))).mean((2, 3)))


NAMES = ["stem", "block.0", "point", "up", "fc"]
MACS = {"stem": 32 * 8 * 8 * 27, "block.0": 32 * 8 * 8 * 9, "point": 64 * 8 * 8 * 32, "up": 64 * 8 * 8 * 16 * 4}


def job(folder, source, precision, **fields):
    folder.mkdir()
    return ExportJob(
        source=str(source),
        folder=str(folder),
        result=str(folder / "result.json"),
        precision=precision,
        input_names=("input",),
        output_names=("logits",),
        dynamic_batch=True,
        **fields,
    )


@pytest.fixture(scope="module")
def floating(tmp_path_factory):
    """The exported float file of `Net`."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("floating")
    example = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    save_program(Net().eval(), example, folder / "program.pt2", dynamic_batch=True)
    modules = tuple(name for name, _ in Net().named_modules() if name)
    written = OnnxExporter().export(job(folder / "out", folder / "program.pt2", "fp32", modules=modules))
    return folder / "out" / "model.onnx", written.precision


@pytest.fixture(scope="module")
def quantized(floating, tmp_path_factory):
    """A function float layers → path of a Q/DQ graph of `Net`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    images = np.random.default_rng(1).normal(size=(8, 3, 16, 16)).astype(np.float32)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter([images])

        def get_next(self):
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    def build(*float_layers):
        out = tmp_path_factory.mktemp("quantized") / "model.onnx"
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                floating[0],
                out,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=["up", *float_layers],  # ONNX Runtime has no integer transposed convolution
            )
        finally:
            logging.disable(logging.NOTSET)
        return out

    return build


def test_an_exported_file_calls_its_layers_like_modules(floating):
    path, precision = floating
    graph = onnx.load(path).graph

    assert [node.name for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")] == NAMES
    assert (precision.int8_layers, precision.float_layers, precision.int8_mac_share) == (0, 5, 0.0)
    assert "their weights are 5 FLOAT" in precision.how


def test_layers_behind_the_pixel_input_are_called_the_same(tmp_path):
    spec = Preprocess(size=16, crop_fraction=1.0, interpolation="bilinear", layout="nhwc")
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    save_program(PixelInput(Net().eval(), spec), pixels, tmp_path / "program.pt2", dynamic_batch=True)
    modules = tuple(name for name, _ in Net().named_modules() if name)

    OnnxExporter().export(job(tmp_path / "out", tmp_path / "program.pt2", "fp32", modules=modules))

    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert [node.name for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")] == NAMES


@pytest.mark.parametrize("float_layers", [(), ("block.0",), ("block.0", "point")])
def test_onnx_runtime_says_which_layers_it_runs_on_integers(float_layers, quantized):
    path = quantized(*float_layers)

    found = read_onnx(path)

    left = {"up", *float_layers}
    share = sum(macs for name, macs in MACS.items() if name not in left) / sum(MACS.values())
    assert (found.int8_layers, found.float_layers) == (5 - len(left), len(left))
    assert found.int8_mac_share == pytest.approx(share)
    assert "ONNX Runtime" in found.how
    assert f"{4 - len(left)} QLinearConv" in found.how
    assert f"{100 * share:.1f} % of convolution MACs in INT8; in float" in found.how
    assert all(name in found.how for name in left)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["model.onnx"]


def test_weights_left_in_float_are_not_quantized_behind_our_back(quantized):
    import onnxruntime

    path, options = quantized("block.0"), onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_name("optimised.onnx"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    alone = onnx.load(options.optimized_model_filepath).graph.node

    assert any(node.name.startswith("block.0") and node.op_type == "QLinearConv" for node in alone)
    assert "in float block.0" in read_onnx(path).how


def test_a_graph_for_another_engine_is_read_as_written(quantized):
    path = quantized("point")

    found = read_onnx(path, executed=False)

    assert quantized_layers(onnx.load(path).graph) == ["stem", "block.0", "fc"]
    assert (found.int8_layers, found.float_layers) == (3, 2)
    assert found.how.startswith("model.onnx holds 2 Conv int8")


def test_a_layer_without_quantized_output_is_float_in_onnx_runtime_though_written_as_int8(quantized):
    path = quantized()
    model = onnx.load(path)
    source = {name: node for node in model.graph.node for name in node.output}
    up = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
    relu = source[source[source[up.input[0]].input[0]].input[0]]
    for node in (source[up.input[0]], source[source[up.input[0]].input[0]]):
        model.graph.node.remove(node)
    up.input[0] = relu.output[0]
    onnx.save(model, path)

    assert "point" in quantized_layers(model.graph)
    assert "point" in read_onnx(path).how
    assert "point" not in read_onnx(path, executed=False).how


def test_openvino_says_which_layers_it_compiled_to_integers(quantized, floating, tmp_path):
    source = quantized("point")

    written = OpenVINOExporter().export(job(tmp_path / "out", source, "int8"))
    OpenVINOExporter().export(job(tmp_path / "float", floating[0], "fp32"))

    found = written.precision
    share = (MACS["stem"] + MACS["block.0"]) / sum(MACS.values())
    assert (found.int8_layers, found.float_layers) == (3, 2)
    assert found.int8_mac_share == pytest.approx(share)
    assert "compiled for CPU by OpenVINO" in found.how
    assert "2 Convolution u8" in found.how
    assert "in float point, up" in found.how
    sizes = [(tmp_path / folder / "model.bin").stat().st_size for folder in ("out", "float")]
    saved = 3 * (32 * 27 + 32 * 9 + 160)  # three of four bytes of each weight that is INT8
    assert sizes[1] - sizes[0] > 0.5 * saved


def test_a_float_ir_has_no_int8(floating, tmp_path):
    found = OpenVINOExporter().export(job(tmp_path / "out", floating[0], "fp16")).precision

    assert (found.int8_layers, found.float_layers, found.int8_mac_share) == (0, 5, 0.0)
    assert "stored as 5 f16" in found.how


@pytest.mark.parametrize(
    ("op_type", "shape", "groups", "macs"),
    [
        ("Conv", (32, 16, 3, 3), 1, 32 * 6 * 6 * 16 * 9),
        ("Conv", (32, 4, 1, 1), 4, 32 * 8 * 8 * 4),
        ("ConvTranspose", (32, 8, 2, 2), 2, 32 * 8 * 8 * 8 * 4),
        ("Gemm", (10, 32), 1, 0),
    ],
)
def test_macs_are_those_of_one_image_in_both_readers(op_type, shape, groups, macs, tmp_path, monkeypatch):
    import openvino

    from ghostdeploy.exporters.openvino import exporter as ir_reader

    model = onnx.shape_inference.infer_shapes(one_layer(op_type, np.ones(shape, np.int8), groups=groups))
    onnx.save(model, tmp_path / "model.onnx")
    node = next(node for node in model.graph.node if node.name == "layer")
    ops = openvino.Core().read_model(tmp_path / "model.onnx").get_ordered_ops()
    (layer,) = [op for op in ops if op.get_type_name() in ir_reader._WEIGHTED]

    assert OnnxGraph(model).macs(node) == (macs if "Conv" in op_type else math.prod(shape))
    assert ir_reader._macs(layer) == macs


def test_an_unknown_size_gives_no_share():
    layers = [
        Layer(name="a", executed="QLinearConv", int8=True, macs=macs([8, 3, 3, 3], features=8, image=[8, None, 4])),
        Layer(name="b", executed="Conv float", int8=False, macs=7),
    ]

    assert int8_mac_share(layers) is None
    assert "unknown share" in achieved(layers, how="read").how
    assert float_layer_names(layers) == ("b",)


def test_many_float_layers_are_counted_not_listed():
    layers = [Layer(name=f"layer{i}", executed="Conv float", int8=i == 0, macs=1) for i in range(9)]

    found = achieved(layers, how="read")

    assert found.how == "read; 11.1 % of convolution MACs in INT8; in float layer1, layer2, layer3 and 5 more"
    assert (found.int8_layers, found.float_layers) == (1, 8)

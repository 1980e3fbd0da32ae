"""The precision of an ONNX graph, as written and as ONNX Runtime executes it; needs no torch."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ghostdeploy.convert.attestation import Layer, achieved, executed_phrase
from ghostdeploy.convert.base import count_phrase
from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph, attribute
from ghostdeploy.convert.graph.shapes import infer_shapes
from ghostdeploy.telemetry import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import PrecisionAchieved

_INTEGER = ("QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat")
_INTEGER_WEIGHTS = "MatMulNBits"
_ROUNDED = 4
"""Accuracy level at which it rounds a layer's data to 8 bits."""
_FUSION_SUFFIX = re.compile(r"_token_\d+$|/MatMulAddFusion$")


def read_precision(path: Path, *, executed: bool = True) -> PrecisionAchieved:
    """Reads the layers with weights of the written file.

    Args:
        path: A float graph is described by the types of its weights, a Q/DQ graph by its layers.
        executed: A layer of a Q/DQ graph is INT8 when ONNX Runtime makes an integer operator of it; else, for a graph
            that another engine will run, when its data and weights are 8-bit integers.
    """
    model = infer_shapes(onnx.load(path, load_external_data=False), strict=False)
    nodes = [node for node in model.graph.node if node.op_type in LAYERS]
    written = quantized_layers(model.graph) or compressed_layers(model.graph)
    if not written:
        how = f"{path.name} holds {_float_phrase(nodes, model.graph)}"
        return achieved([Layer(name=n.name, executed=n.op_type, int8=False, macs=0) for n in nodes], how=how)
    if executed:
        engine, integer = integer_layers(path)
        start = f"optimised for CPU by {engine}:"
    else:
        integer = {node.name: f"{node.op_type} int8" for node in nodes if node.name in written}
        start = f"{path.name} holds"
    graph = OnnxGraph(model)
    layers = [
        Layer(
            name=node.name,
            executed=integer.get(node.name, f"{node.op_type} float"),
            int8=node.name in integer,
            macs=graph.macs(node) if "Conv" in node.op_type else 0,
        )
        for node in nodes
    ]
    return achieved(layers, how=f"{start} {executed_phrase(layers)}")


def _float_phrase(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> str:
    """Returns `95 Conv, 1 Gemm; their weights are 96 FLOAT`."""
    names = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer}
    weights = Counter(names.get(node.input[1], "computed") for node in nodes)
    return f"{count_phrase(Counter(node.op_type for node in nodes))}; their weights are {count_phrase(weights)}"


def quantized_layers(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of layers whose data and weights both come from 8-bit integers."""
    integers = _restored(graph)
    return [node.name for node in graph.node if node.op_type in LAYERS and integers.issuperset(node.input[:2])]


def compressed_layers(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of layers whose weights alone come from 8-bit integers."""
    constants = {tensor.name for tensor in graph.initializer}
    restored = _restored(graph)
    stored = {node.output[0] for node in graph.node if node.input[:1] and node.input[0] in constants} & restored
    return [node.name for node in graph.node if node.op_type in LAYERS and node.input[1] in stored]


def _restored(graph: onnx.GraphProto) -> set[str]:
    """Returns the values that come from 8-bit integers; without a zero point the type is one of them too."""
    bits8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and types.get((*node.input, "", "")[2], bits8[0]) in bits8
    }


def integer_layers(path: Path) -> tuple[str, dict[str, str]]:
    """Returns ONNX Runtime's version and the layers that its CPU provider runs on integers, with its operators.

    Its session is opened like the runtime's, without the optimizer that quantizes weights left in float.
    """
    with silent():
        import onnxruntime

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns that a file optimised here is for processors like this one
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
        )
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    kinds = (*_INTEGER, _INTEGER_WEIGHTS)
    named = {_FUSION_SUFFIX.sub("", node.name): _executed(node) for node in nodes if node.op_type in kinds}
    return f"ONNX Runtime {onnxruntime.__version__}", named


def _executed(node: onnx.NodeProto) -> str:
    """Returns what runs a layer; with INT8 weights, also how ONNX Runtime rounds the data that they multiply."""
    kind: str = node.op_type
    if kind != _INTEGER_WEIGHTS:
        return kind
    level = attribute(node, "accuracy_level", 0)
    return f"{kind} on {'8-bit' if level == _ROUNDED else 'float'} data"

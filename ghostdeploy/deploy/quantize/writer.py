"""The Q/DQ graph: ONNX Runtime's quantizer writes it, with our ranges, weight scales and choice of layers.

Tensors that must share a scale (all inputs of a Concat and its output, so that the copy stays a copy) are named in
groups; their ranges come equal. A weight's scales are given per output channel. Tool defaults that the recipe does not
want are switched off: outputs of layers quantized without an INT8 reader, biases for a GPU.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph, attribute, output_axis
from ghostdeploy.deploy.quantize.blocks import vector_branches
from ghostdeploy.deploy.quantize.float_layers import read_bare
from ghostdeploy.deploy.quantize.heads import behind_layers
from ghostdeploy.deploy.quantize.indexed_model import IndexedModel
from ghostdeploy.deploy.quantize.positive import is_positive
from ghostdeploy.deploy.quantize.saturation import safe_scales
from ghostdeploy.deploy.quantize.shared_scales import merge
from ghostdeploy.telemetry import silent

with silent():
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.targets import Recipe

Range = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What will be quantized in one graph."""

    nodes: list[onnx.NodeProto]
    """Nodes that are quantized."""
    float_nodes: frozenset[str]
    """Names of nodes that stay float, by rule or by request."""
    activations: list[str]
    """Tensors whose ranges are needed."""
    shared_scales: list[tuple[str, ...]]
    """Groups of tensors that share one scale."""
    shortcuts: list[str]
    """Tensors that are quantized for the sake of a sum alone."""
    rectified: frozenset[str] = frozenset()
    """Outputs of a Relu that the tool takes away, because integers that begin at 0 do its work."""


def plan(model: onnx.ModelProto, recipe: Recipe, *, float_layers: frozenset[str] = frozenset()) -> Plan:
    """Chooses the nodes.

    Args:
        model: Float graph with inferred shapes.
        recipe: Types and rules.
        float_layers: Names of layers that stay float on top of the recipe's rules. Nodes without weights that touched
            only those stay float with them.
    """
    graph = OnnxGraph(model)
    by_rule = set() if recipe.quantize_gates else vector_branches(graph)
    if recipe.int8_gates:  # engines make one operator of a layer and its ReLU; XNNPACK leaves out a pair between them
        layers = {node.output[0]: node for node in graph.layers()}
        by_rule -= {node.name for node in graph.nodes if node.op_type == "Relu" and node.input[0] in layers}
        by_rule -= {node.name for node in layers.values()}
    by_rule |= behind_layers(graph) | {node.name for node in graph.layers() if node.op_type not in recipe.op_types}
    if not recipe.int8_groups:
        by_rule |= {node.name for node in graph.layers() if attribute(node, "group", 1) > 1}
    if recipe.int8_transposed == "positive":
        transposed = (node for node in graph.nodes if node.op_type == "ConvTranspose")
        by_rule |= {node.name for node in transposed if not is_positive(graph, node.input[0])}
    wanted = (n for n in graph.nodes if n.op_type in recipe.op_types and n.name not in by_rule)
    # Sizes for a Resize are concatenated as integers; the normalisation of pixels adds a constant.
    able = [n for n in wanted if graph.is_float(n.output[0]) and not _shifts(graph, n)]
    idle = untouched(graph, able, float_layers) - untouched(graph, able, frozenset())
    floating = by_rule | float_layers | idle
    nodes = [node for node in able if node.name not in floating]
    groups = [(*node.input, *node.output) for node in nodes if node.op_type == "Concat"]
    shortcuts = bare_shortcuts(graph, nodes) if recipe.quantize_shortcuts else []
    activations = list(dict.fromkeys([*graph.activations(nodes), *shortcuts]))
    rectified = () if recipe.symmetric else (node.output[0] for node in nodes if node.op_type == "Relu")
    return Plan(nodes, frozenset(floating), activations, merge(groups), shortcuts, frozenset(rectified))


def _shifts(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    return node.op_type == "Add" and any(name in graph.constants for name in node.input)


def untouched(graph: OnnxGraph, nodes: Sequence[onnx.NodeProto], float_layers: frozenset[str]) -> set[str]:
    """Returns the nodes without weights that touch no quantized layer.

    A Concat is touched where a quantized layer reads one of its inputs or its output; other nodes also where one writes
    their input.
    """
    names = {node.name for node in nodes} - float_layers
    layers = {node.name: node for node in graph.layers()}
    quantized = [layer for name, layer in layers.items() if name in names]
    read = {layer.input[0] for layer in quantized}
    written = {layer.output[0] for layer in quantized}
    found = set()
    for node in nodes:
        touching = read if node.op_type == "Concat" else read | written
        if node.name not in layers and not touching & {*node.input, *node.output}:
            found.add(node.name)
    return found


def bare_shortcuts(graph: OnnxGraph, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Returns the shortcut of every sum of maps whose two sides no quantized node reads, and no float layer writes.

    The shortcut is the side that comes from no layer and no Concat of layers; where both do, it is the one that comes
    from no Concat, else the second, as networks write `residual + shortcut`.
    """
    read = {name for node in nodes for name in node.input}
    names = {node.name for node in nodes}
    floats = {layer.output[0] for layer in graph.layers() if layer.name not in names}
    found = []
    for node in graph.nodes:
        sides = [name for name in node.input if name not in graph.constants]
        if node.op_type != "Add" or len(sides) < 2 or not all(graph.is_map(name) for name in sides):
            continue
        if not read & set(sides) and not floats & set(_made_of(graph, sides)):
            found.append(min(reversed(sides), key=lambda name: _convolved(graph, name)))
    return found


def _convolved(graph: OnnxGraph, name: str) -> int:
    """Returns 0 for a tensor that no layer writes, 1 for a layer's, 2 for a Concat's."""
    kind = graph.producer[name].op_type if name in graph.producer else ""
    return 2 if kind == "Concat" else int(kind in LAYERS)


def _made_of(graph: OnnxGraph, names: Iterable[str]) -> Iterator[str]:
    """Yields the tensors and, through a Concat, what they are made of."""
    for name in names:
        yield name
        producer = graph.producer.get(name)
        if producer is not None and producer.op_type == "Concat":
            yield from producer.input


def write(model: onnx.ModelProto, recipe: Recipe, chosen: Plan, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Returns the Q/DQ graph.

    Args:
        model: Float graph with inferred shapes; it is copied.
        recipe: Types and rules.
        chosen: What `plan` said.
        ranges: Lowest and highest value of each activation to be representable, equal for tensors that share a scale.
    """
    data: dict[str, Any] = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
    }
    options = {
        "ActivationSymmetric": recipe.symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": recipe.quantize_bias,
        "OpTypesToExcludeOutputQuantization": list(recipe.bare_outputs),
        "TensorQuantOverrides": _weight_overrides(OnnxGraph(model), recipe),
    }
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[node.name for node in chosen.nodes],
        nodes_to_exclude=sorted(chosen.float_nodes),
        op_types_to_quantize=list(recipe.op_types),
        extra_options=options,
    )
    quantizer.model = IndexedModel(quantizer.model.model)
    for name in chosen.shortcuts:
        quantizer.quantize_activation_tensor(name)
    with _quiet():
        quantizer.quantize_model()
    result = quantizer.model.model
    read_bare(result, chosen.float_nodes, recipe, chosen.rectified)
    return onnx.shape_inference.infer_shapes(result, data_prop=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the root logger, through which the tool talks, for the time of the block."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _weight_overrides(graph: OnnxGraph, recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """Returns a safe scale per output channel for every weight, or that it has one; none where the tool decides."""
    overrides: dict[str, list[dict[str, Any]]] = {}
    for node in graph.layers():
        if node.op_type in recipe.one_scale:
            overrides[node.input[1]] = [{"quant_type": QuantType.QInt8, "symmetric": True}]
        if node.op_type in recipe.one_scale or not recipe.saturation_safe:
            continue
        axis, groups = output_axis(node), attribute(node, "group", 1)
        overrides[node.input[1]] = [
            {"quant_type": QuantType.QInt8, "axis": axis, "scale": scale, "zero_point": np.zeros((), np.int8)}
            for scale in _scales(graph.constants[node.input[1]], axis, groups)
        ]
    return overrides


_known: dict[tuple[bytes, int, int], NDArray[np.float32]] = {}
"""Scales by what they come from: the weights of a network are written tens of times."""


def _scales(weight: onnx.TensorProto, axis: int, groups: int) -> NDArray[np.float32]:
    values = numpy_helper.to_array(weight)
    key = hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).digest(), axis, groups
    if key not in _known:
        _known[key] = safe_scales(np.moveaxis(values, axis, 0), groups=groups)
    return _known[key]

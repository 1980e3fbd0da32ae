"""The Q/DQ graph: ONNX Runtime's quantizer writes it, with our ranges, weight scales and choice of layers.

Tensors that must share a scale (all inputs of a Concat and its output, so that the copy stays a copy) get the union of
their ranges. A weight's scales are given per output channel. What the tool would do by habit and the recipe does not
want is switched off: outputs of layers quantized without an INT8 reader, biases for a GPU.
"""

from __future__ import annotations

import copy
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from ghostdeploy.deploy.quantize.graph import LAYERS, OnnxGraph, group_of, output_axis
from ghostdeploy.deploy.saturation import safe_scales

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ghostdeploy.deploy.quantize.recipe import Recipe

Range = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What will be quantized in one graph."""

    nodes: list[onnx.NodeProto]
    """Nodes that are quantized."""
    float_nodes: frozenset[str]
    """Names of nodes that stay float by rule."""
    activations: list[str]
    """Tensors whose ranges are needed."""
    ties: list[tuple[str, ...]]
    """Groups of tensors that share one scale."""
    shortcuts: list[str]
    """Tensors that are quantized for the sake of a sum alone."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the nodes that are quantized."""
        return frozenset(node.name for node in self.nodes)


def plan(model: onnx.ModelProto, recipe: Recipe) -> Plan:
    """Chooses the nodes."""
    graph = OnnxGraph(model)
    float_nodes = graph.vector_branches()
    if recipe.int8_gates:
        float_nodes -= {node.name for node in graph.layers()}
    wanted = (n for n in graph.nodes if n.op_type in recipe.op_types and n.name not in float_nodes)
    # Sizes for a Resize are concatenated as integers; the normalisation of pixels adds a constant.
    nodes = [n for n in wanted if graph.is_float(n.output[0]) and not _shifts(graph, n)]
    ties = [(*node.input, *node.output) for node in nodes if node.op_type == "Concat"]
    shortcuts = bare_shortcuts(graph, nodes) if recipe.quantize_shortcuts else []
    activations = list(dict.fromkeys([*graph.activations(nodes), *shortcuts]))
    return Plan(nodes, frozenset(float_nodes), activations, merge(ties), shortcuts)


def _shifts(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    return node.op_type == "Add" and any(name in graph.constants for name in node.input)


def bare_shortcuts(graph: OnnxGraph, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Returns the shortcut of every sum of maps whose two sides no quantized node reads.

    The shortcut is the side that comes from no Concat; of two convolutions it is the second, as networks write
    `residual + shortcut`.
    """
    read = {name for node in nodes for name in node.input}
    found = []
    for node in graph.nodes:
        sides = [name for name in node.input if name not in graph.constants]
        if node.op_type != "Add" or len(sides) < 2 or not all(graph.is_map(name) for name in sides):
            continue
        if not read & set(sides):
            kinds = [graph.producer[name].op_type if name in graph.producer else "" for name in sides]
            found.append(sides[0] if kinds[1] == "Concat" and kinds[0] != "Concat" else sides[1])
    return found


def merge(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Returns the groups united where they share a member."""
    merged: list[dict[str, None]] = []
    for group in groups:
        joined = dict.fromkeys(group)
        apart = []
        for other in merged:
            if joined.keys() & other.keys():
                joined |= other
            else:
                apart.append(other)
        merged = [*apart, joined]
    return [tuple(group) for group in merged]


def unite(ranges: Mapping[str, Range], ties: Sequence[Sequence[str]]) -> dict[str, Range]:
    """Gives all tensors of a tie the union of their ranges."""
    united = dict(ranges)
    for tie in ties:
        known = [ranges[name] for name in tie if name in ranges]
        both = (min(low for low, _ in known), max(high for _, high in known))
        united |= {name: both for name in tie if name in ranges}
    return united


def write(
    model: onnx.ModelProto,
    recipe: Recipe,
    chosen: Plan,
    ranges: Mapping[str, Range],
    *,
    float_layers: frozenset[str] = frozenset(),
) -> onnx.ModelProto:
    """Returns the Q/DQ graph.

    Args:
        model: Float graph with inferred shapes; it is copied.
        recipe: Types and rules.
        chosen: What `plan` said.
        ranges: Lowest and highest value of each activation to be representable.
        float_layers: Names of nodes that stay float on top of the plan's.
    """
    united = unite(ranges, chosen.ties)
    data: dict[str, Any] = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in united.items()
    }
    graph = OnnxGraph(model)
    floating = float_layers | idle(graph, chosen, float_layers)
    kind = QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8
    options = {
        "ActivationSymmetric": recipe.symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": recipe.quantize_bias,
        "OpTypesToExcludeOutputQuantization": list(recipe.bare_outputs),
        "TensorQuantOverrides": _weight_overrides(graph) if recipe.saturation_safe else {},
    }
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=kind,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=sorted(chosen.names - floating),
        nodes_to_exclude=sorted(chosen.float_nodes | floating),
        op_types_to_quantize=list(recipe.op_types),
        extra_options=options,
    )
    shortcuts = chosen.shortcuts
    if float_layers and recipe.quantize_shortcuts:
        shortcuts = still_bare(graph, chosen, floating)
    for name in shortcuts:
        quantizer.quantize_activation_tensor(name)
    with _quiet():
        quantizer.quantize_model()
    result = quantizer.model.model
    if float_layers:
        read_bare(result, floating)
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


def still_bare(graph: OnnxGraph, chosen: Plan, floating: frozenset[str]) -> list[str]:
    """Returns the shortcuts that need a pair when some layers are float: those between layers that are still INT8."""
    floats = {node.output[0] for node in graph.layers() if node.name in floating}
    found = bare_shortcuts(graph, [node for node in chosen.nodes if node.name not in floating])
    sums = {name: node for node in graph.nodes if node.op_type == "Add" for name in node.input}
    return [name for name in found if not floats & {*_sources(graph, sums[name].input)} and name in chosen.activations]


def _sources(graph: OnnxGraph, names: Iterable[str]) -> Iterator[str]:
    """Yields the tensors and, through Concats, what they are made of."""
    for name in names:
        yield name
        producer = graph.producer.get(name)
        if producer is not None and producer.op_type == "Concat":
            yield from producer.input


def read_bare(model: onnx.ModelProto, floating: frozenset[str]) -> None:
    """Lets float layers read the tensor itself where other readers' Q/DQ pair stands before it."""
    producer = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        source = producer.get(node.input[0]) if node.name in floating and node.input else None
        if source is None or source.op_type != "DequantizeLinear" or node.op_type not in LAYERS:
            continue
        pair = producer.get(source.input[0])
        if pair is not None and pair.op_type == "QuantizeLinear":
            node.input[0] = pair.input[0]
    for kind in ("DequantizeLinear", "QuantizeLinear"):  # pairs that nobody reads any more
        read = {name for node in model.graph.node for name in node.input}
        for node in [n for n in model.graph.node if n.op_type == kind and n.output[0] not in read]:
            model.graph.node.remove(node)


def idle(graph: OnnxGraph, chosen: Plan, float_layers: frozenset[str]) -> frozenset[str]:
    """Returns planned nodes without weights that touch no quantized layer: in INT8 they would only add noise.

    A Concat counts as touched where a quantized layer reads one of its inputs or its output; other nodes also where one
    writes their input.
    """
    layers = [node for node in graph.layers() if node.name in chosen.names - float_layers]
    read = {node.input[0] for node in layers}
    written = {node.output[0] for node in layers}
    found: list[str] = []
    busy = {node.name for node in layers}
    for node in chosen.nodes if float_layers else []:
        if node.name in float_layers | busy:
            continue
        touching = read | (written if node.op_type != "Concat" else set())
        if not touching & {*node.input, *node.output}:
            found.append(node.name)
    return frozenset(found)


def _weight_overrides(graph: OnnxGraph) -> dict[str, list[dict[str, Any]]]:
    """Returns a safe scale per output channel for every weight."""
    overrides = {}
    for node in graph.layers():
        weight = numpy_helper.to_array(graph.constants[node.input[1]])
        axis = output_axis(node)
        rows = np.moveaxis(weight, axis, 0)
        overrides[node.input[1]] = [
            {"quant_type": QuantType.QInt8, "axis": axis, "scale": scale, "zero_point": np.zeros((), np.int8)}
            for scale in safe_scales(rows, groups=group_of(node))
        ]
    return overrides

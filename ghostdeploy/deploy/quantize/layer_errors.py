"""The float graph with a quantized shadow beside each layer.

For a layer y = W∗x + b the shadow takes the same float input,

    ŷ = DQ(Q(W))∗DQ(Q(x)) + b,      d = ŷ − y,

so that an error is seen where it arises and does not travel. One run gives, for every layer and image, Σ d², Σ y² and
the mean of d per channel.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.deploy.quantize.simulate import TOGETHER, GraphRunner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch

_SQUARES = ("error", "signal")


@dataclass
class LayerErrors:
    """Sums over images of one layer."""

    images: int = 0
    error: float = 0.0
    """Σ d²."""
    signal: float = 0.0
    """Σ y²."""
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    """Σ over images of the spatial mean of d, per output channel."""


def layer_errors(
    floating: onnx.ModelProto, quantized: onnx.ModelProto, batches: Iterable[Batch]
) -> dict[str, LayerErrors]:
    """Runs all shadows.

    Args:
        floating: Float graph with inferred shapes.
        quantized: Its Q/DQ graph; layers keep their names.
        batches: Model inputs.

    Returns:
        One record per quantized layer, by node name.
    """
    model, layers = _with_shadows(floating, quantized)
    if not layers:
        return {}
    runner = GraphRunner(model, fused=True, together=TOGETHER)
    found: dict[str, LayerErrors] = defaultdict(LayerErrors)
    for batch in batches:
        values = dict(zip(runner.outputs, runner(batch), strict=True))
        for name in layers:
            record = found[name]
            record.images += len(batch)
            record.error += float(values[f"{name}/error"].sum(dtype=np.float64))
            record.signal += float(values[f"{name}/signal"].sum(dtype=np.float64))
            record.shift = record.shift + values[f"{name}/shift"].sum(axis=0, dtype=np.float64)
    return dict(found)


def _with_shadows(floating: onnx.ModelProto, quantized: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Returns the graph and the names of the layers that have a shadow."""
    model = copy.deepcopy(floating)
    theirs, ours = OnnxGraph(quantized), OnnxGraph(floating)
    by_name = {node.name: node for node in theirs.nodes}
    del model.graph.output[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "shadow/row"))
    names: list[str] = []
    copied: set[str] = set()
    for node in ours.layers():
        shadow = by_name.get(node.name)
        sources = [theirs.producer.get(name) for name in shadow.input[:2]] if shadow is not None else []
        quantizers = [source for source in sources if source is not None and source.op_type == "DequantizeLinear"]
        if len(quantizers) == 2:
            _add_shadow(model, theirs, node, quantizers, copied)
            _add_sums(model, node, len(ours.shapes[node.output[0]]))
            names.append(node.name)
    return model, names


def _add_shadow(
    model: onnx.ModelProto, theirs: OnnxGraph, node: onnx.NodeProto, sources: list[onnx.NodeProto], copied: set[str]
) -> None:
    """Adds ŷ and d."""
    graph, stem = model.graph, f"{node.name}/"
    activation, weight = sources
    for name in dict.fromkeys((*activation.input[1:], *weight.input)):
        if name not in copied:
            copied.add(name)
            tensor = copy.deepcopy(theirs.constants[name])
            tensor.name = f"shadow/{name}"
            graph.initializer.append(tensor)
    scale = [f"shadow/{name}" for name in activation.input[1:]]
    graph.node.append(helper.make_node("QuantizeLinear", [node.input[0], *scale], [f"{stem}q"]))
    graph.node.append(helper.make_node("DequantizeLinear", [f"{stem}q", *scale], [f"{stem}x"]))
    restored, shadow = copy.deepcopy(weight), copy.deepcopy(node)
    restored.name, restored.input[:], restored.output[:] = "", [f"shadow/{n}" for n in weight.input], [f"{stem}w"]
    shadow.name, shadow.input[:2], shadow.output[:] = "", [f"{stem}x", f"{stem}w"], [f"{stem}y"]
    graph.node.extend([restored, shadow, helper.make_node("Sub", [f"{stem}y", node.output[0]], [f"{stem}d"])])


def _add_sums(model: onnx.ModelProto, node: onnx.NodeProto, rank: int) -> None:
    """Adds the three outputs, each with a row per image: the runner cuts filled-up images off."""
    graph, stem = model.graph, f"{node.name}/"
    for source, name in ((f"{stem}d", "error"), (node.output[0], "signal")):
        graph.node.append(helper.make_node("Flatten", [source], [f"{stem}{name}/rows"], axis=1))
        graph.node.append(helper.make_node("ReduceSumSquare", [f"{stem}{name}/rows", "shadow/row"], [f"{stem}{name}"]))
    if rank > 2:
        axes = f"{stem}axes"
        graph.initializer.append(numpy_helper.from_array(np.arange(2, rank, dtype=np.int64), axes))
        graph.node.append(helper.make_node("ReduceMean", [f"{stem}d", axes], [f"{stem}shift"], keepdims=0))
    else:
        graph.node.append(helper.make_node("Identity", [f"{stem}d"], [f"{stem}shift"]))
    for name in (*_SQUARES, "shift"):
        graph.output.append(helper.make_tensor_value_info(f"{stem}{name}", onnx.TensorProto.FLOAT, None))

"""Rewrites an ONNX graph for `network`.

Constants of an operator become tensors of the graph:

    HardSigmoid: clip(x/6 + 1/2, 0, 1)      →  clip(x + 3, 0, 6) / 6
                 clip(a·x + b, 0, 1)        →  clip(x·a + b, 0, 1)

A number in a PyTorch call becomes a tensor of float32 or int64 when ExecuTorch lowers it, and is converted to the type
of the data at every call, outside of the delegate. A constant of the graph has the right type from the start.

An operator that only moves integers reads and writes one scale and zero point:

    DQ(s, z) → Concat → Q(t, w)        →   DQ(s, z) → Q(t, w) → DQ(t, w) → Concat → Q(t, w)

Rounding twice to the same steps is rounding once, so the graph computes what it did. XNNPACK does not load a
concatenation of several scales; a part behind a ReLU has its own, which begins at 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

from ghostdeploy.convert.graph.index import OnnxGraph

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

_MOVING = ("Concat", "Flatten", "MaxPool", "Reshape", "Slice", "Transpose")


def write_hard_sigmoids(model: onnx.ModelProto) -> None:
    """Writes hard sigmoids as sums, clips and a factor, in place."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes += _plain(node, model.graph) if node.op_type == "HardSigmoid" else [node]
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _plain(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    given = {one.name: float(one.f) for one in node.attribute}
    slope, shift = given.get("alpha", 0.2), given.get("beta", 0.5)
    name, source = node.output[0], node.input[0]
    if math.isclose(slope, 1 / 6, rel_tol=1e-6) and math.isclose(shift, 0.5):
        steps = [("Add", 3.0), ("Clip", 6.0), ("Div", 6.0)]
    else:
        steps = [("Mul", slope), ("Add", shift), ("Clip", 1.0)]
    found = []
    for place, (kind, value) in enumerate(steps):
        target = name if place == len(steps) - 1 else f"{name}/{kind}"
        low, own = f"{name}/{kind}/0", f"{name}/{kind}/{value:g}"
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), own))
        if kind == "Clip":
            graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), low))
        given_names = [source, low, own] if kind == "Clip" else [source, own]
        found.append(helper.make_node(kind, given_names, [target], f"{node.name}/{kind}"))
        source = target
    return found


def share_scales(model: onnx.ModelProto) -> None:
    """Lets operators that move integers read what they write, in place."""
    nodes: list[onnx.NodeProto] = []
    index = OnnxGraph(model)
    for node in index.nodes:
        if node.op_type in _MOVING:
            nodes += _rounded_alike(node, index)
        nodes.append(node)
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _rounded_alike(node: onnx.NodeProto, index: OnnxGraph) -> Iterator[onnx.NodeProto]:
    """Yields the pairs that go before a node, and lets it read them."""
    name = node.output[0]
    readers = [] if name in index.outputs else index.readers(name)
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return
    wanted = list(readers[0].input[1:])
    places = range(len(node.input)) if node.op_type == "Concat" else range(1)
    for place in places:
        maker = index.producer.get(node.input[place])
        if maker is None or maker.op_type != "DequantizeLinear" or _same(maker.input[1:], wanted, index):
            continue
        rounded, restored = (f"{name}/{place}/{word}" for word in ("rounded", "restored"))
        yield helper.make_node("QuantizeLinear", [node.input[place], *wanted], [rounded], rounded)
        yield helper.make_node("DequantizeLinear", [rounded, *wanted], [restored], restored)
        node.input[place] = restored


def _same(names: Sequence[str], others: Sequence[str], index: OnnxGraph) -> bool:
    """Returns whether two scales with their zero points are equal."""
    values = ([numpy_helper.to_array(index.constants[name]).tolist() for name in group] for group in (names, others))
    return next(values) == next(values)

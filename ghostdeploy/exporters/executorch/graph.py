"""Rewrites an ONNX graph for `network`: constants of an operator become tensors of the graph.

    HardSigmoid: clip(x/6 + 1/2, 0, 1)      →  clip(x + 3, 0, 6) / 6
                 clip(a·x + b, 0, 1)        →  clip(x·a + b, 0, 1)

A number in a PyTorch call becomes a tensor of float32 or int64 when ExecuTorch lowers it, and is converted to the type
of the data at every call, outside of the delegate. A constant of the graph has the right type from the start.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    import onnx


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

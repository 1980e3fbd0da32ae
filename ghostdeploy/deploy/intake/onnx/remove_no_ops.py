"""Removes nodes that return their input.

    Identity, Dropout (inference)                    y = x
    Pad by zero places, Transpose to the same order
    Cast, CastLike                                   where the type stays
    Reshape, Flatten, Expand, Slice                  where the shape stays
    Concat, Sum, Max, Min, Mean of one tensor
    x + 0, x − 0, x · 1, x / 1                       where the shape stays

Limit: a graph input that is also handed out keeps its Identity, because both have their own names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.intake.onnx.graph import attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from ghostdeploy.deploy.intake.onnx.graph import Graph
    from ghostdeploy.deploy.intake.onnx.passes import Site

_SINGLE = ("Concat", "Sum", "Max", "Min", "Mean")
_SHAPED = ("Reshape", "Flatten", "Expand")
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}


class RemoveNoOps:
    """Removes nodes without effect."""

    name = "RemoveNoOps"

    def run(self, graph: Graph) -> tuple[int, Sequence[Site]]:
        """See `OnnxPass.run`."""
        sites = 0
        for node in list(graph.nodes):
            source = _passed_through(node, graph)
            if source is not None:
                sites += graph.bypass(node, source)
        return sites, ()


def _passed_through(node: onnx.NodeProto, graph: Graph) -> str | None:
    """Returns the input that the node hands on unchanged; None when it does something."""
    kind = node.op_type
    first: str = node.input[0] if node.input else ""
    if kind == "Identity" or (kind in _SINGLE and len(node.input) == 1):
        return first
    if kind == "Dropout":
        return first if _drops_nothing(node, graph) else None
    if kind == "Pad":
        pads = graph.array(node.input[1])
        return first if pads is not None and not pads.any() else None
    if kind == "Transpose":
        order = attributes(node).get("perm")
        return first if order is not None and list(order) == list(range(len(order))) else None
    if kind in ("Cast", "CastLike"):
        wanted = attributes(node)["to"] if kind == "Cast" else graph.element(node.input[1])
        return first if wanted and graph.element(first) == wanted else None
    if kind in _SHAPED or (kind == "Slice" and _forward(node, graph)):
        return first if _same_shape(first, node.output[0], graph) else None
    return _neutral(node, graph)


def _drops_nothing(node: onnx.NodeProto, graph: Graph) -> bool:
    mask = node.output[1] if len(node.output) > 1 else ""
    if mask and (mask in graph.outputs or mask in graph.readers()):
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = graph.array(node.input[2])
    return training is not None and not training.any()


def _forward(node: onnx.NodeProto, graph: Graph) -> bool:
    """Returns whether a Slice takes every element it passes: with the shape unchanged that is all of them, in order."""
    if len(node.input) < 5 or not node.input[4]:
        return True
    steps = graph.array(node.input[4])
    return steps is not None and bool((steps == 1).all())


def _same_shape(before: str, after: str, graph: Graph) -> bool:
    shape = graph.shape(before)
    return shape is not None and shape == graph.shape(after)


def _neutral(node: onnx.NodeProto, graph: Graph) -> str | None:
    if node.op_type not in _NEUTRAL:
        return None
    places = (1,) if node.op_type in ("Sub", "Div") else (0, 1)
    for place in places:
        other: str = node.input[1 - place]
        constant = graph.array(node.input[place])
        if constant is None or not np.all(constant == _NEUTRAL[node.op_type]):
            continue
        if _same_shape(other, node.output[0], graph):
            return other
    return None

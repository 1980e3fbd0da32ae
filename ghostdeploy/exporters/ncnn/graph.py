"""Rewrites an ONNX graph for pnnx: what it gets wrong, or has no layer for, is replaced first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.convert.base import RefusedError
from ghostdeploy.convert.graph.index import OnnxGraph, attribute

if TYPE_CHECKING:
    from collections.abc import Mapping


def take_floats(model: onnx.ModelProto) -> None:
    """Lets a graph take pixels as floats, in place.

    Raises:
        RefusedError: An input is of another type.
    """
    graph = model.graph
    for value in graph.input:
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT:
            continue
        casts = [node for node in graph.node if value.name in node.input]
        if kind.elem_type != TensorProto.UINT8 or any(not _makes_floats(node) for node in casts):
            name = TensorProto.DataType.Name(kind.elem_type).lower()
            raise RefusedError(f"ncnn takes float images, or pixels converted to float first; {value.name} is {name}")
        kind.elem_type = TensorProto.FLOAT
        made = {node.output[0] for node in casts}
        for node in graph.node:
            node.input[:] = [value.name if name in made else name for name in node.input]
        for node in casts:
            graph.node.remove(node)


def _makes_floats(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and attribute(node, "to", 0) == int(TensorProto.FLOAT)


def pool_maxima(model: onnx.ModelProto) -> None:
    """Writes the largest values of whole maps as pools, in place: pnnx reads no ReduceMax."""
    index, nodes = OnnxGraph(model), list[onnx.NodeProto]()
    for node in index.nodes:
        name = node.output[0]
        if not _is_maximum_of_maps(node, index):
            nodes.append(node)
        elif attribute(node, "keepdims", 1):
            nodes.append(helper.make_node("GlobalMaxPool", node.input[:1], [name], node.name))
        else:
            kept = f"{name}/kept"
            nodes.append(helper.make_node("GlobalMaxPool", node.input[:1], [kept], node.name))
            nodes.append(helper.make_node("Flatten", [kept], [name], f"{node.name}/flat", axis=1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def pair_axes(model: onnx.ModelProto) -> None:
    """Gives reductions along one axis a second one of length 1, in place: pnnx loses an axis that is alone."""
    index, nodes = OnnxGraph(model), list[onnx.NodeProto]()
    for node in index.nodes:
        rank = len(index.shapes.get(node.input[0], ())) if node.op_type in ("ReduceSum", "ReduceMean") else 0
        axes = _axes(node, index.constants) if rank in (3, 4) and len(node.input) == 2 else []
        if len(axes) == 1:
            nodes += _paired(model, node, axes[0] % rank)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _paired(model: onnx.ModelProto, node: onnx.NodeProto, axis: int) -> list[onnx.NodeProto]:
    """Returns a reduction along `axis` of a tensor with an axis of length 1 behind it."""
    name, kept = node.output[0], bool(attribute(node, "keepdims", 1))
    wide, narrow = f"{name}/wide", f"{name}/narrow"
    for suffix, values in (("behind", [axis + 1]), ("pair", [axis, axis + 1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"{name}/{suffix}"))
    nodes = [
        helper.make_node("Unsqueeze", [node.input[0], f"{name}/behind"], [wide], f"{node.name}/wide"),
        helper.make_node(node.op_type, [wide, f"{name}/pair"], [narrow if kept else name], node.name, keepdims=kept),
    ]
    if kept:
        nodes.append(helper.make_node("Squeeze", [narrow, f"{name}/behind"], [name], f"{node.name}/narrow"))
    return nodes


def _is_maximum_of_maps(node: onnx.NodeProto, index: OnnxGraph) -> bool:
    if node.op_type != "ReduceMax" or len(index.shapes.get(node.input[0], ())) != 4:
        return False
    return {axis % 4 for axis in _axes(node, index.constants)} == {2, 3}


def _axes(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> list[int]:
    """Returns the axes of a reduction; before opset 18 they are an attribute."""
    if len(node.input) > 1:
        return (
            [int(axis) for axis in numpy_helper.to_array(constants[node.input[1]])]
            if node.input[1] in constants
            else []
        )
    return [int(axis) for one in node.attribute if one.name == "axes" for axis in one.ints]

"""What readers of ONNX read differently, or not at all, in a form that all read alike; sizes are known by then.

    auto_pad, output_shape   become   pads     pnnx has no layer for the first; OpenVINO and pnnx misread the second
    GroupNormalization       becomes  Reshape, InstanceNormalization, Reshape, Mul, Add, as PyTorch writes it for opset
                                      18; `onnx` infers no type behind that of opset 21, and then no checker passes

With input size i, stride s, dilated kernel k and output size o, the padding of both ends of an axis is

    SAME                   max((⌈i/s⌉ − 1)·s + k − i, 0)
    of a deconvolution     s·(i − 1) + k − o,   o = i·s unless given

and an odd one more at the end for SAME_UPPER, else at the beginning. The result must give what the file gives.
Refused, and left as they are: pools that round up, deconvolutions larger than their input spreads.
Source: the operators' definitions in the ONNX standard.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ghostdeploy.convert.graph.shapes import without_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Shapes = Mapping[str, list[int | None]]

_PADDED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"})


def write_plainly(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model in those forms, with inferred shapes; itself where nothing is to be done.

    Args:
        model: Its sizes are given, its batch may be free; not changed.
    """
    if not any(_is_odd(node) for node in model.graph.node):
        return model
    shapes = _shapes(model)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:], plain.graph.value_info[:]
    for node in model.graph.node:
        plain.graph.node.extend(_written(node, shapes, plain.graph) if _is_odd(node) else [node])
    return onnx.shape_inference.infer_shapes(plain, data_prop=True)


def _is_odd(node: onnx.NodeProto) -> bool:
    if node.op_type == "GroupNormalization":
        return True
    given = _attributes(node) if node.op_type in _PADDED else {}
    return given.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in given


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _shapes(model: onnx.ModelProto) -> Shapes:
    """Returns the size of every tensor that has one, free ones as None; a GroupNormalization changes none."""
    known = without_weights(model)
    for node in known.graph.node:
        if node.op_type == "GroupNormalization":
            del node.attribute[:], node.input[1:]
            node.op_type = "Identity"
    graph = onnx.shape_inference.infer_shapes(known, data_prop=True).graph
    found: dict[str, list[int | None]] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    return found


def _written(node: onnx.NodeProto, shapes: Shapes, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    if node.op_type == "GroupNormalization":
        return list(_groups_normalised(node, shapes, graph))
    pads = _pads(node, shapes)
    if pads is None:
        return [node]
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    del plain.attribute[:]
    plain.attribute.extend(one for one in node.attribute if one.name not in ("auto_pad", "output_shape", "pads"))
    plain.attribute.append(helper.make_attribute("pads", pads))
    return [plain]


def _pads(node: onnx.NodeProto, shapes: Shapes) -> list[int] | None:
    """Returns the padding at the beginning of each axis, then at the end; None where it is not known."""
    given = _attributes(node)
    weight = shapes.get(node.input[1], ()) if "Conv" in node.op_type else ()
    kernel: Sequence[int | None] = given.get("kernel_shape") or weight[2:]
    image = shapes.get(node.input[0], ())[2:]
    if given.get("ceil_mode") or not kernel or len(image) != len(kernel) or None in (*kernel, *image):
        return None
    ones = [1] * len(kernel)
    strides, dilations = given.get("strides", ones), given.get("dilations", ones)
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]  # type: ignore[operator]
    way = given.get("auto_pad", b"NOTSET")
    if node.op_type == "ConvTranspose":
        wanted = given.get("output_shape") or [i * s for i, s in zip(image, strides, strict=True)]
        extra = given.get("output_padding", [0] * len(kernel))
        sizes = zip(image, strides, spans, extra, wanted[-len(kernel) :], strict=True)
        totals = [s * (i - 1) + e + k - o for i, s, k, e, o in sizes]  # type: ignore[operator]
        if way == b"VALID" and "output_shape" not in given:
            totals = [0] * len(kernel)
    else:
        sizes_of = zip(image, strides, spans, strict=True)
        totals = [max((math.ceil(i / s) - 1) * s + k - i, 0) for i, s, k in sizes_of]
        totals = totals if way != b"VALID" else [0] * len(kernel)
    if min(totals) < 0:
        return None
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*less, *more] if way == b"SAME_UPPER" else [*more, *less]


def _groups_normalised(node: onnx.NodeProto, shapes: Shapes, graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    given, stem = _attributes(node), node.name or node.output[0]
    groups, (image, *affine), rank = given["num_groups"], node.input, len(shapes[node.input[0]])

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{stem}.{name}"))
        return f"{stem}.{name}"

    def call(kind: str, name: str, *inputs: str, **options: Any) -> onnx.NodeProto:
        return helper.make_node(kind, list(inputs), [f"{stem}.{name}"], name=f"{stem}.{name}", **options)

    ones, zeros = constant("ones", np.ones(groups, np.float32)), constant("zeros", np.zeros(groups, np.float32))
    yield (grouped := call("Reshape", "grouped", image, constant("groups", [0, groups, -1])))
    epsilon = given.get("epsilon", 1e-5)
    yield (normal := call("InstanceNormalization", "normal", grouped.output[0], ones, zeros, epsilon=epsilon))
    yield (size := call("Shape", "size", image))
    yield (restored := call("Reshape", "restored", normal.output[0], size.output[0]))
    wide = constant("wide", [-1, *[1] * (rank - 2)])
    scale, shift = (
        call("Reshape", f"{name}.wide", one, wide) for name, one in zip(("scale", "bias"), affine, strict=True)
    )
    yield from (scale, shift)
    yield (scaled := call("Mul", "scaled", restored.output[0], scale.output[0]))
    yield helper.make_node("Add", [scaled.output[0], shift.output[0]], node.output, name=stem)

"""What each ONNX operator becomes: a step, a part of one, or another name for a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.convert.base import RefusedError
from ghostdeploy.exporters.native.lowering import Lowering
from ghostdeploy.exporters.native.operands import check_pair, factors, per_channel
from ghostdeploy.exporters.native.rounding import dequantize, floats, integers, quantize
from ghostdeploy.exporters.native.steps import Activation, Map, Step, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    Given = dict[str, Any]

_MOST = 3.402823466e38
_MOST_REACH = 64
"""Rows under a window of the depthwise kernel, see `GHOST_MOST_ROWS`."""
_PLANES_TO_PIXELS, _PIXELS_TO_PLANES = [0, 2, 3, 1], [0, 3, 1, 2]


def lower(model: onnx.ModelProto) -> Lowering:
    """Returns the steps of a graph whose shapes are inferred.

    Raises:
        RefusedError: It has what native has no kernel for; it is named.
    """
    return Lowering(model, OPERATORS)


# Layers


def _conv(to: Lowering, node: Any, given: Given) -> None:
    weights = to.constants[node.input[1]].astype(np.float32)
    window = Window(
        *weights.shape[2:],
        *given.get("strides", [1, 1]),
        *given.get("pads", [0, 0])[:2],
        *given.get("dilations", [1, 1]),
    )
    groups, name = given.get("group", 1), node.input[0]
    found = integers(to, node, to.maps[name])
    data, out = to.maps[name] if found is not None else floats(to, name), to.new(node.output[0])
    step = Step(kind="DENSE", name=node.name, reads=[data], writes=out, window=window, groups=groups, integers=found)
    step.weights, step.bias = weights, _bias(to, node, len(weights))
    if window == Window() and groups == 1:
        step.kind = "VECTOR" if data.is_vector else "POINTWISE"
        if found is None:
            _take_gate(to, step, name)
    elif groups == data.channels == out.channels and window.reach <= _MOST_REACH:
        step.kind = "DEPTHWISE"
    to.add(step)


def _take_gate(to: Lowering, step: Step, name: str) -> None:
    """Lets weights take the gate on what they read, where they are fewer than its values."""
    gate, data = to.sole(name), step.reads[0]
    fewer = step.weights is not None and step.weights.size < data.channels * data.pixels
    plain = gate is not None and gate.kind == "SCALE" and not gate.touches_bytes
    if step.kind == "POINTWISE" and gate is not None and plain and fewer:
        step.reads, step.scaled_by = [gate.reads[0]], gate.reads[1]
        to.remove(gate)


def _bias(to: Lowering, node: Any, count: int) -> NDArray[np.float32]:
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(count, np.float32)
    return np.broadcast_to(to.constants[node.input[2]].astype(np.float32).ravel(), (count,))


def _gemm(to: Lowering, node: Any, given: Given) -> None:
    if given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0 or given.get("transA", 0):
        raise RefusedError(f"native has no kernel for a Gemm with factors at {node.name}")
    _product(to, node, transposed=bool(given.get("transB", 0)))


def _matmul(to: Lowering, node: Any, _: Given) -> None:
    _product(to, node, transposed=False)


def _product(to: Lowering, node: Any, *, transposed: bool) -> None:
    """A vector times a constant matrix (inputs, outputs)."""
    name, data = node.input[1], to.maps.get(node.input[0])
    if data is None or len(to.shapes[node.input[0]]) != 2 or name not in to.constants:
        raise RefusedError(f"native multiplies vectors with constant matrices; {node.name} has other operands")
    weights, codes = to.constants[name].astype(np.float32), to.codes.get(name)
    weights = weights if transposed else weights.T
    found = integers(to, node, data, transposed=not transposed)
    data = data if found is not None else floats(to, node.input[0])
    step = Step(kind="VECTOR", name=node.name, reads=[data], writes=to.new(node.output[0]), integers=found)
    step.weights, step.bias = weights[:, :, None, None], _bias(to, node, len(weights))
    if codes is not None and found is None and codes[2] == int(not transposed):
        step.codes = (codes[0] if transposed else codes[0].T, np.broadcast_to(codes[1].ravel(), (len(weights),)))
    to.add(step)


# Activations


def _simple(kind: str) -> Callable[[Lowering, Any, Given], None]:
    return lambda to, node, _: to.activate(node, Activation(kind))


def _hardsigmoid(to: Lowering, node: Any, given: Given) -> None:
    to.activate(node, Activation("HARD_SIGMOID", given.get("alpha", 0.2), given.get("beta", 0.5)))


def _leakyrelu(to: Lowering, node: Any, given: Given) -> None:
    to.activate(node, Activation("LEAKY_RELU", given.get("alpha", 0.01)))


def _clip(to: Lowering, node: Any, _: Given) -> None:
    low, high = (
        float(to.constants[node.input[place]]) if len(node.input) > place and node.input[place] else limit
        for place, limit in ((1, -_MOST), (2, _MOST))
    )
    to.activate(node, Activation("CLIP", low, high))


def _softmax(to: Lowering, node: Any, given: Given) -> None:
    data = floats(to, node.input[0])
    if not data.is_vector or given.get("axis", -1) % len(to.shapes[node.input[0]]) != 1:
        raise RefusedError(f"native has no kernel for a softmax of maps at {to.placed(node)}")
    to.add(Step(kind="SOFTMAX", name=node.name, reads=[data], writes=to.new(node.output[0])))


def _max(to: Lowering, node: Any, _: Given) -> None:
    bound = to.constants.get(node.input[1]) if len(node.input) == 2 else None
    if bound is None or bound.size != 1 or float(bound.ravel()[0]) != 0:
        raise RefusedError(f"native has no kernel for a maximum of two tensors at {node.name}")
    to.activate(node, Activation("RELU"))


# Several maps


def _concat(to: Lowering, node: Any, given: Given) -> None:
    if given["axis"] not in (1, -3):
        raise RefusedError(f"native concatenates channels; {node.name} concatenates dimension {given['axis']}")
    out, offset = to.new(node.output[0]), 0
    grids = {to.maps[name].grid for name in node.input}
    out.rounded = grids.pop() if len(grids) == 1 else None
    for name in node.input:
        part = to.maps[name]
        held = part.home is not None or to.writer(part) is None or name in to.graph.outputs
        if held or part.grid != out.rounded:
            copy = Map(f"{out.name}/{offset}", part.height, part.width, part.channels)
            to.add(Step(kind="COPY", name=node.name, reads=[part], writes=copy))
            part = copy
        part.home, part.offset = out, offset
        offset += part.channels


def _slice(to: Lowering, node: Any, _: Given) -> None:
    starts, _, *rest = (to.constants[name].tolist() for name in node.input[1:] if name)
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1]
    data, out = to.maps[node.input[0]], to.new(node.output[0])
    if axes != [1] or any(step != 1 for step in steps):
        raise RefusedError(f"native slices channels; {node.name} slices dimensions {axes}")
    start = starts[0] if starts[0] >= 0 else max(0, data.channels + starts[0])
    out.home, out.offset = data, start


def _split(to: Lowering, node: Any, given: Given) -> None:
    if given.get("axis", 0) not in (1, -3):
        raise RefusedError(f"native splits channels; {node.name} splits dimension {given.get('axis', 0)}")
    offset = 0
    for name in node.output:
        part = to.new(name)
        part.home, part.offset = to.maps[node.input[0]], offset
        offset += part.channels


def _add(to: Lowering, node: Any, _: Given) -> None:
    constant = next((name for name in node.input if name in to.constants), None)
    if constant is None:
        check_pair(to, node)
        to.sum_maps(node)
        return
    name = next(one for one in node.input if one != constant)
    values, step = to.constants[constant].astype(np.float32), to.sole(name)
    ready = step is not None and step.kind == "VECTOR" and step.added is None and step.integers is None
    if ready and step is not None and step.bias is not None:
        step.bias = step.bias + per_channel(to, node, name, values)
        to.alias(node.output[0], step.writes)
        return
    _affine(to, node, name, shift=values)


def _sub(to: Lowering, node: Any, _: Given) -> None:
    if node.input[1] not in to.constants:
        raise RefusedError(f"native has no kernel for a difference of two tensors at {node.name}")
    _affine(to, node, node.input[0], shift=-to.constants[node.input[1]].astype(np.float32))


def _div(to: Lowering, node: Any, _: Given) -> None:
    if node.input[1] not in to.constants:
        raise RefusedError(f"native has no kernel for a quotient of two tensors at {node.name}")
    _affine(to, node, node.input[0], scale=1 / to.constants[node.input[1]].astype(np.float32))


def _mul(to: Lowering, node: Any, _: Given) -> None:
    constant = next((name for name in node.input if name in to.constants), None)
    if constant is not None:
        name = next(one for one in node.input if one != constant)
        _affine(to, node, name, scale=to.constants[constant].astype(np.float32))
        return
    check_pair(to, node)
    first, other = factors(to, node)
    kind = "SCALE" if other.is_vector and not first.is_vector else "MUL"
    to.add(Step(kind=kind, name=node.name, reads=[first, other], writes=to.new(node.output[0])))


def _affine(to: Lowering, node: Any, name: str, scale: Any = None, shift: Any = None) -> None:
    """Appends x · scale + shift by channel; several in a row are one step."""
    data, step = to.maps[name], to.sole(name)
    ones, zeros = np.ones(data.channels, np.float32), np.zeros(data.channels, np.float32)
    factor = ones if scale is None else per_channel(to, node, name, scale)
    offset = zeros if shift is None else per_channel(to, node, name, shift)
    if step is not None and step.kind in ("AFFINE", "PIXELS"):
        before = (
            (ones[:, None, None, None], zeros)
            if step.weights is None or step.bias is None
            else (step.weights, step.bias)
        )
        step.weights, step.bias = before[0] * factor[:, None, None, None], before[1] * factor + offset
        to.alias(node.output[0], step.writes)
        return
    made = Step(kind="AFFINE", name=node.name, reads=[data], writes=to.new(node.output[0]))
    made.weights, made.bias = factor[:, None, None, None], offset
    to.add(made)


# Other sizes and orders


def _reduce_mean(to: Lowering, node: Any, given: Given) -> None:
    axes = to.constants[node.input[1]].tolist() if len(node.input) > 1 else given.get("axes", [])
    if sorted(axes) not in ([2, 3], [-2, -1]):
        raise RefusedError(f"native takes the mean over height and width; {node.name} over {axes}")
    _global_average(to, node, given)


def _global_average(to: Lowering, node: Any, _: Given) -> None:
    data = to.maps[node.input[0]]
    sums = Map(f"{node.output[0]}/rows", data.height, 1, data.channels)
    to.add(Step(kind="SQUEEZE", name=node.name, reads=[data], writes=sums))
    to.add(Step(kind="MEAN", name=node.name, reads=[sums, data], writes=to.new(node.output[0])))


def _pool(kind: str) -> Callable[[Lowering, Any, Given], None]:
    def pooled(to: Lowering, node: Any, given: Given) -> None:
        pads = given.get("pads", [0, 0, 0, 0])
        if given.get("ceil_mode", 0) or (kind == "AVERAGE" and any(pads) and not given.get("count_include_pad", 0)):
            raise RefusedError(f"native has no {node.op_type} with partial windows at {node.name}")
        strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
        window = Window(*given["kernel_shape"], *strides, *pads[:2], *dilations)
        data, made = to.maps[node.input[0]] if kind == "MAXIMUM" else floats(to, node.input[0]), to.new(node.output[0])
        made.rounded = data.grid
        to.add(Step(kind=kind, name=node.name, reads=[data], writes=made, window=window))

    return pooled


def _resize(to: Lowering, node: Any, given: Given) -> None:
    how = given.get("mode", b"nearest"), given.get("coordinate_transformation_mode"), given.get("nearest_mode")
    if how != (b"nearest", b"asymmetric", b"floor"):
        raise RefusedError(f"native resizes to the nearest pixel below; {node.name} is {how}")
    data, made = to.maps[node.input[0]], to.new(node.output[0])
    made.rounded = data.grid
    to.add(Step(kind="NEAREST", name=node.name, reads=[data], writes=made))


def _reshape(to: Lowering, node: Any, _: Given) -> None:
    data = to.maps[node.input[0]]
    out = to.new(node.output[0])
    if data.pixels * data.channels != out.channels:
        raise RefusedError(f"native flattens maps; {node.name} makes {list(to.shapes[node.output[0]])} of one")
    if data.is_vector:
        to.alias(node.output[0], data)
        return
    every = Window(height=data.height, stride_y=data.height)  # its one row takes them all
    to.add(Step(kind="STORE", name=node.name, reads=[data], writes=out, window=every))


def _cast(to: Lowering, node: Any, _: Given) -> None:
    data = to.maps[node.input[0]]
    if data not in to.inputs or to.is_float(node.input[0]):
        raise RefusedError(f"native converts inputs of bytes alone; {node.name} has others")
    out = to.new(node.output[0])
    out.height, out.width, out.channels = data.height, data.width, data.channels
    to.add(Step(kind="PIXELS", name=node.name, reads=[data], writes=out))


def _transpose(to: Lowering, node: Any, given: Given) -> None:
    """Images whose channels are last come as they are needed."""
    name, order = node.input[0], given.get("perm")
    data, made = to.maps[name], to.writer(to.maps[name])
    outer = data in to.inputs or (made is not None and made.kind == "PIXELS")
    if order == _PIXELS_TO_PLANES and outer and to.uses(data) == 1:
        found, caller = to.new(node.output[0]), data if made is None else made.reads[0]
        for one in (data, caller):
            one.height, one.width, one.channels = found.height, found.width, found.channels
        if made is not None and made.weights is not None and made.bias is not None:
            made.weights, made.bias = (_repeated(node, each, found.channels) for each in (made.weights, made.bias))
        to.channels_last.add(caller)
        to.alias(node.output[0], data)
    elif order == _PLANES_TO_PIXELS and node.output[0] in to.graph.outputs:
        out = to.maps[node.output[0]] = Map(node.output[0], data.height, data.width, data.channels)
        to.channels_last.add(out)
        if to.uses(data) == 1 and to.writer(data) is not None and data.home is None:
            to.channels_last.add(data)
            to.alias(node.output[0], data)
        else:
            to.add(Step(kind="COPY", name=node.name, reads=[data], writes=out))
    else:
        raise RefusedError(f"native turns inputs and outputs alone; {node.name} turns {order}")


def _repeated(node: Any, values: NDArray[Any], channels: int) -> NDArray[Any]:
    """Returns what is the same for all rows of an image as the same for all its channels."""
    if (values != values[0]).any():
        raise RefusedError(f"native takes constants per channel; what {node.name} turns has some per row")
    return np.repeat(values[:1], channels, axis=0)


OPERATORS: dict[str, Callable[[Lowering, Any, Given], None]] = {
    "Add": _add, "AveragePool": _pool("AVERAGE"), "Cast": _cast, "Clip": _clip, "Concat": _concat, "Conv": _conv,
    "DequantizeLinear": dequantize, "Div": _div, "Flatten": _reshape, "Gemm": _gemm,
    "GlobalAveragePool": _global_average, "HardSigmoid": _hardsigmoid, "HardSwish": _simple("HARD_SWISH"),
    "Identity": _reshape, "LeakyRelu": _leakyrelu, "MatMul": _matmul, "Max": _max, "MaxPool": _pool("MAXIMUM"),
    "Mul": _mul, "QuantizeLinear": quantize, "ReduceMean": _reduce_mean, "Relu": _simple("RELU"), "Reshape": _reshape,
    "Resize": _resize, "Sigmoid": _simple("SIGMOID"), "Slice": _slice, "Softmax": _softmax, "Split": _split,
    "Squeeze": _reshape, "Sub": _sub, "Transpose": _transpose, "Unsqueeze": _reshape,
}  # fmt: skip

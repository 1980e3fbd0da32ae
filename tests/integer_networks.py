"""Random quantized networks, and what they give by the arithmetic of docs/native.md, in NumPy.

    layer       float32(Σ (q − z) · w + b) · float32(s · s_w / s')        then round, half to even, + z', 0…255
    sum         float32((a − z_a) · r_a) + float32((b − z_b) · r_b)        r = float32(s / s')
    gate        (a − z_a) · float32(g · r)
    mean        (Σ a − n · z_a) · float32(r / n)

Sums of layers are whole numbers of 64 bits; every other operation is one of float32, rounded alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ghostdeploy import targets
from ghostdeploy.convert.graph import file as onnx_file
from tests.native_networks import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

F = np.float32


class IntegerGraph(Graph):
    """A graph of operators that the quantizer takes, and gates."""

    def activated(self, name: str) -> str:
        return self.node("Relu", [name]) if self.random.random() < 0.5 else name

    def grow(self) -> None:
        pieces = [
            self.pointwise, self.depthwise, self.dense, self.ghost, self.ghost, self.residual, self.gate, self.largest,
            self.cut, self.join,
        ]  # fmt: skip
        pieces[self.random.integers(len(pieces))]()
        self.earlier.append((self.name, self.shape))

    def gate(self) -> None:
        super().gate()
        self.pointwise()

    def largest(self) -> None:
        if min(self.shape[1:]) >= 4:
            self.name = self.node("MaxPool", [self.name], kernel_shape=[2, 2], strides=[2, 2])
            self.shape = (self.shape[0], self.shape[1] // 2, self.shape[2] // 2)


def quantized_model(seed: int) -> onnx.ModelProto:
    """Returns a random Q/DQ graph, with the ranges of four images."""
    from ghostdeploy.deploy.quantize import writer

    graph = IntegerGraph(seed)
    graph.pointwise()
    for _ in range(int(graph.random.integers(1, 8))):
        graph.grow()
    graph.pointwise()
    model, recipe = graph.finished(), targets.find("native").recipe
    assert recipe is not None
    chosen = writer.plan(model, recipe)
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in (*exposed.graph.output, *exposed.graph.input)}
    exposed.graph.output.extend(
        value for value in model.graph.value_info if value.name in chosen.activations and value.name not in known
    )
    ranges = dict.fromkeys(chosen.activations, (0.0, 0.0))
    for image in images(model, 4, seed):
        for name, array in {"input": image, **executed(exposed, image)}.items():
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(array.min())), max(high, float(array.max()))
    for group in chosen.shared_scales if seed % 4 else ():  # without them parts of a concatenation are rounded again
        shared = [ranges[name] for name in group if name in ranges]
        both = min(low for low, _ in shared), max(high for _, high in shared)
        ranges |= {name: both for name in group if name in ranges}
    found = writer.write(model, recipe, chosen, {name: ranges[name] for name in chosen.activations})
    onnx_file.sort(found.graph)
    return found


def images(model: onnx.ModelProto, count: int, seed: int) -> list[NDArray[np.float32]]:
    """Returns random images for a model."""
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(F) for _ in range(count)]


def executed(model: onnx.ModelProto, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Returns the outputs of a model by ONNX Runtime, as the graph says them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": image}), strict=True))


class Value:
    """A tensor as factor · whole, by channel; floats have no factor."""

    def __init__(self, whole: NDArray[Any], factor: Any = None, grid: tuple[float, int] | None = None) -> None:
        self.whole, self.factor, self.grid = whole, factor, grid

    def over(self, step: float) -> NDArray[np.float32]:
        """Returns what it is in steps of an output: one product of float32."""
        if self.factor is None:
            return self.whole * F(F(1) / F(step)) if step != 1 else self.whole
        factor = F(np.asarray(self.factor) / step)
        return self.whole.astype(F) * (factor if factor.ndim == 0 else factor.reshape(-1, *[1] * (self.whole.ndim - 2)))


class Integers:
    """Computes a Q/DQ graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}

    def __call__(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self.found = {"input": Value(image)}
        for node in self.model.graph.node:
            given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            getattr(self, f"_{node.op_type.lower()}")(node, given)
        return [self.found[value.name].over(1) for value in self.model.graph.output]

    def _put(self, node: Any, value: Value) -> None:
        self.found[node.output[0]] = value

    def _quantizelinear(self, node: Any, _: Any) -> None:
        scale, zero = (self.constants[name] for name in node.input[1:])
        value, grid = self.found[node.input[0]], (float(scale), int(zero))
        if value.grid != grid:
            steps = value.made(grid[0]) if isinstance(value, Late) else value.over(grid[0])
            whole = np.clip(np.rint(np.clip(steps, F(-grid[1]), F(255 - grid[1]))) + grid[1], 0, 255)
            value = Value(whole.astype(np.int64) - grid[1], grid[0], grid)
        self._put(node, value)

    def _dequantizelinear(self, node: Any, given: Any) -> None:
        if node.input[0] in self.found:
            self._put(node, self.found[node.input[0]])
        else:
            self.constants[node.output[0]] = node

    def _conv(self, node: Any, given: Any) -> None:
        data, codes = self.found[node.input[0]], self.constants[node.input[1]]
        weights, scales = (self.constants[name] for name in codes.input[:2])
        factor = scales.astype(np.float64) * data.factor
        sums = convolved(data.whole, weights.astype(np.int64), given)
        self._put(node, Value(sums + self._bias(node, factor)[:, None, None], factor))

    def _gemm(self, node: Any, given: Any) -> None:
        data, codes = self.found[node.input[0]], self.constants[node.input[1]]
        weights, scales = (self.constants[name] for name in codes.input[:2])
        factor = scales.astype(np.float64) * data.factor
        self._put(node, Value(data.whole @ weights.astype(np.int64).T + self._bias(node, factor), factor))

    def _bias(self, node: Any, factor: NDArray[np.float64]) -> NDArray[np.int64]:
        if len(node.input) < 3:
            return np.zeros(len(factor), np.int64)
        found = self.constants[node.input[2]]
        if isinstance(found, np.ndarray):
            return np.rint(found.astype(np.float64) / factor).astype(np.int64)
        return self.constants[found.input[0]].astype(np.int64)

    def _relu(self, node: Any, _: Any) -> None:
        value = self.found[node.input[0]]
        self._put(node, Value(np.maximum(value.whole, 0), value.factor))

    def _add(self, node: Any, _: Any) -> None:
        first, other = (self.found[name] for name in node.input)
        self._put(node, Late(lambda step: first.over(step) + other.over(step)))

    def _mul(self, node: Any, _: Any) -> None:
        first, other = (self.found[name] for name in node.input)
        if first.factor is None:
            first, other = other, first
        self._put(node, Late(lambda step: first.whole.astype(F) * (other.over(1) * F(F(first.factor) / F(step)))))

    def _hardsigmoid(self, node: Any, given: Any) -> None:
        value = self.found[node.input[0]].over(1)
        self._put(node, Value(np.clip(value * F(given["alpha"]) + F(given["beta"]), F(0), F(1))))

    def _reducemean(self, node: Any, _: Any) -> None:
        value = self.found[node.input[0]]
        count = value.whole.shape[2] * value.whole.shape[3]
        sums = value.whole.sum((2, 3), keepdims=True).astype(F)
        self._put(node, Late(lambda step: sums * F(F(F(value.factor) / F(step)) / F(count))))

    _globalaveragepool = _reducemean

    def _concat(self, node: Any, _: Any) -> None:
        parts = [self.found[name] for name in node.input]
        if len({one.grid for one in parts}) > 1:
            self._put(node, Value(np.concatenate([one.over(1) for one in parts], 1)))
        else:
            self._put(node, Value(np.concatenate([one.whole for one in parts], 1), parts[0].factor, parts[0].grid))

    def _slice(self, node: Any, _: Any) -> None:
        value, (start, end) = self.found[node.input[0]], (int(self.constants[name][0]) for name in node.input[1:3])
        self._put(node, Value(value.whole[:, start:end], value.factor, value.grid))

    def _flatten(self, node: Any, _: Any) -> None:
        value = self.found[node.input[0]]
        self._put(node, value.reshaped() if isinstance(value, Late) else flat(value))

    def _maxpool(self, node: Any, _: Any) -> None:
        value = self.found[node.input[0]]
        height, width = (side // 2 * 2 for side in value.whole.shape[2:])
        four = [value.whole[:, :, y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)]
        self._put(node, Value(np.max(four, 0), value.factor, value.grid))


class Late(Value):
    """A tensor whose last operation is in steps of what rounds it."""

    def __init__(self, made: Any) -> None:
        super().__init__(np.zeros(0, F))
        self.made = made

    def over(self, step: float) -> NDArray[np.float32]:
        return self.made(step)

    def reshaped(self) -> Late:
        return Late(lambda step: self.made(step).reshape(1, -1))


def flat(value: Value) -> Value:
    return Value(value.whole.reshape(1, -1), value.factor, value.grid)


def convolved(data: NDArray[np.int64], weights: NDArray[np.int64], given: dict[str, Any]) -> NDArray[np.int64]:
    """Returns the sums of a convolution."""
    (down, across), (spread, _) = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    data = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)))
    groups, (count, inputs, height, width) = given.get("group", 1), weights.shape
    rows = (data.shape[2] - spread * (height - 1) - 1) // down + 1
    columns = (data.shape[3] - spread * (width - 1) - 1) // across + 1
    found = np.zeros((1, count, rows, columns), np.int64)
    for i in range(height):
        for j in range(width):
            y, x = i * spread, j * spread
            seen = data[0, :, y : y + (rows - 1) * down + 1 : down, x : x + (columns - 1) * across + 1 : across]
            seen = seen.reshape(groups, inputs, rows, columns)
            taps = weights[:, :, i, j].reshape(groups, count // groups, inputs)
            found[0] += np.einsum("gkyx,gnk->gnyx", seen, taps).reshape(count, rows, columns)
    return found

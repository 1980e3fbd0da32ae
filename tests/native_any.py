"""Random networks of every form of operator that `native` takes: inputs, outputs and pieces of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.native_vectors import Vectors

if TYPE_CHECKING:
    Shape = tuple[int, int, int]

_PIXELS_TO_PLANES, _PLANES_TO_PIXELS = [0, 3, 1, 2], [0, 2, 3, 1]
_MOST_INPUTS = 4
_MOST_OUTPUT = 40_000
"""Values."""
_LARGE = 30_000


class AnyGraph(Vectors):
    """A graph whose pieces, ends and attributes are all that the lowering accepts."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.inputs: list[tuple[str, int, tuple[int, ...]]] = []
        self.name = self._image(self.size)
        self.earlier.append((self.name, self.shape))

    def _image(self, size: Shape) -> str:
        name = f"input{len(self.inputs)}"
        if self.chance(0.75):
            self.inputs.append((name, TensorProto.FLOAT, size))
            return name
        bytes_in = self.chance(0.6)
        kind = TensorProto.UINT8 if bytes_in else TensorProto.FLOAT
        self.inputs.append((name, kind, (*size[1:], size[0])))
        after = bytes_in and self.chance(0.5)
        made = self.node("Cast", [name], to=TensorProto.FLOAT) if bytes_in and not after else name
        made = self.node("Transpose", [made], perm=_PIXELS_TO_PLANES)
        made = self.node("Cast", [made], to=TensorProto.FLOAT) if after else made
        if not bytes_in:
            return made
        made = self.node("Mul", [made, self.constant(self.random.normal(0.01, 0.002, (1, size[0], 1, 1)))])
        return self.node("Add", [made, self.constant(self.random.normal(0, 0.2, (1, size[0], 1, 1)))])

    def another_image(self) -> None:
        """A second input, of the same pixels or others."""
        if len(self.inputs) == _MOST_INPUTS:
            return
        sides = self.shape[1:] if self.chance(0.7) else self._sides()
        shape = (int(self.random.integers(1, 9)), *sides)
        self.earlier.append((self._image(shape), shape))
        if sides == self.shape[1:] and self.chance(0.6):
            self.join()
        elif self.chance(0.5):
            self.name, self.shape = self.earlier[-1]

    def another_vector(self) -> None:
        """An input of one value per channel; it may scale or shift the map."""
        if len(self.inputs) == _MOST_INPUTS:
            return
        name, count = f"input{len(self.inputs)}", self.one(self.shape[0], int(self.random.integers(1, 40)))
        flat = self.chance(0.5)
        self.inputs.append((name, TensorProto.FLOAT, (count,) if flat else (count, 1, 1)))
        if flat:
            self.vectors.append((name, count))
        elif count == self.shape[0]:
            self.name = self.node(self.one("Mul", "Add"), self._in_any_order(self.name, name))

    def grow(self) -> None:
        """Adds one piece."""
        own = [
            self.any_depthwise, self.usual_depthwise, self.any_dense, self.any_pool, self.any_resize, self.any_gate,
            self.any_activation, self.constants_of_any_form, self.twice, self.parts, self.cut_from_behind,
            self.far_gate, self.read_vectors, self.another_image, self.another_vector, self.any_attention,
        ]  # fmt: skip
        if self.chance(0.4):
            super().grow()
        else:
            self.one(*own)()
            self.earlier.append((self.name, self.shape))

    def ends(self) -> onnx.ModelProto:
        """Returns the model: some of its maps and vectors leave it, at least one."""
        if self.chance(0.5) or not self.nodes:
            self.read_vectors()
        made = {name for node in self.nodes for name in node.output}
        maps = [
            one for one in (*self.earlier, (self.name, self.shape)) if one[0] in made and np.prod(one[1]) < _MOST_OUTPUT
        ]
        vectors = [one for one in self.vectors if one[0] in made]
        found: dict[str, tuple[int, ...]] = {}
        for _ in range(int(self.random.integers(1, 4))):
            if vectors and (self.chance(0.5) or not maps):
                name, count = self.one(*vectors)
                found[name] = (1, count)
            elif maps:
                name, shape = self.one(maps[-1], self.one(*maps))
                if self.chance(0.8):
                    found[name] = (1, *shape)
                else:
                    found[self.node("Transpose", [name], perm=_PLANES_TO_PIXELS)] = (1, shape[1], shape[2], shape[0])
        if not found:
            flat = self.flat(self.node("GlobalAveragePool", [self.name]), self.shape[0])
            found = {self.layer(flat, self.shape[0], 7): (1, 7)}
        return self.model(found)

    def model(self, outputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
        """Returns a checked model without what no output needs."""
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                nodes.append(node)
                needed |= set(node.input)
        make = helper.make_tensor_value_info
        given = [make(name, kind, (1, *shape)) for name, kind, shape in self.inputs if name in needed]
        values = [make(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        constants = [one for one in self.constants if one.name in needed]
        graph = helper.make_graph(nodes[::-1], "random", given, values, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)


def any_model(seed: int) -> onnx.ModelProto:
    """Returns a network of 1 to 9 pieces of any kind."""
    graph = AnyGraph(seed)
    for _ in range(int(graph.random.integers(1, 10))):
        if np.prod(graph.shape) > _LARGE:
            graph.name, graph.shape = graph.convolve(graph.name, graph.shape, 8, (3, 3), 2)
        graph.grow()
    return graph.ends()


def inputs_of(model: onnx.ModelProto, seed: int) -> list[Any]:
    """Returns one image for each input, seeded."""
    random, found = np.random.default_rng(seed), []
    for value in model.graph.input:
        shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
        whole = value.type.tensor_type.elem_type == TensorProto.UINT8
        found.append(
            random.integers(0, 256, shape, dtype=np.uint8)
            if whole
            else random.standard_normal(shape).astype(np.float32)
        )
    return found


def described(model: onnx.ModelProto) -> str:
    """Returns a network in lines: each operator, what it reads, its attributes, and the shape that it makes."""
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    shapes = {one.name: [size.dim_value for size in one.type.tensor_type.shape.dim] for one in values}
    shapes |= {one.name: list(one.dims) for one in model.graph.initializer}
    lines = [f"{one.name} {shapes[one.name]}" for one in model.graph.input]
    for node in model.graph.node:
        reads = ", ".join(f"{name} {shapes.get(name)}" if name.startswith("c") else name or "-" for name in node.input)
        how = " ".join(f"{one.name}={helper.get_attribute_value(one)}" for one in node.attribute)
        lines.append(f"{', '.join(node.output)} {shapes.get(node.output[0])} = {node.op_type}({reads}) {how}".rstrip())
    return "\n".join([*lines, f"gives {', '.join(one.name for one in model.graph.output)}"])

"""Random networks of the operators that `native` has kernels for, many in one library: kernels are compiled once."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.arrays import aligned
from ghostdeploy.exporters.executorch.graph import write_hard_sigmoids
from ghostdeploy.exporters.executorch.network import OnnxNetwork
from ghostdeploy.exporters.native.build import build
from ghostdeploy.exporters.native.ends import finished
from ghostdeploy.exporters.native.exporter import write_sources
from ghostdeploy.exporters.native.operators import lower
from ghostdeploy.exporters.native.options import default_levels
from ghostdeploy.exporters.native.plan import make_plan
from ghostdeploy.exporters.native.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_NAMES = (
    "ghost_arena_bytes", "ghost_identity", "ghost_input_bytes", "ghost_input_count", "ghost_output_count",
    "ghost_output_floats", "ghost_run", "ghost_run_part", "ghost_step_alone", "ghost_step_count",
    "ghost_step_read", "groups", "input_bytes", "network", "output_floats", "steps",
)  # fmt: skip
_DECLARED = (
    "int ghost_run(const void *, void *, const void *const *, float *const *)",
    "size_t ghost_arena_bytes(void)",
    "ghost_part ghost_run_part",
    "int ghost_step_read(int, unsigned *)",
    "int ghost_step_alone(int, const void *, const void *, void *, void *const *)",
)
HEAD = '#include "model.h"\n#include "ghost_inside.h"\n'
_ACTIVATIONS = ("Relu", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Clip", None, None)


class Graph:
    """A graph that grows by one random piece at a time."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.size = (int(self.random.integers(1, 5)) if seed % 3 else int(self.random.integers(5, 40)), *self._sides())
        self.shape = self.size
        self.name = "input"
        self.earlier: list[tuple[str, tuple[int, int, int]]] = []

    def _sides(self) -> tuple[int, int]:
        return int(self.random.integers(4, 23)), int(self.random.integers(4, 23))

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.random.normal(0, 1.4 / np.sqrt(np.prod(shape[1:])), shape))

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def activated(self, name: str) -> str:
        kind = _ACTIVATIONS[self.random.integers(len(_ACTIVATIONS))]
        if kind is None:
            return name
        if kind == "Clip":
            return self.node(kind, [name, self.constant(-0.5), self.constant(0.75)])
        extra = (
            {"alpha": 1 / 6, "beta": 0.5} if kind == "HardSigmoid" else {"alpha": 0.1} if kind == "LeakyRelu" else {}
        )
        return self.node(kind, [name], **extra)

    def convolve(self, name: str, shape: tuple[int, int, int], outputs: int, kernel: tuple[int, int], stride: int = 1,
                 group: int = 1, dilation: int = 1) -> tuple[str, tuple[int, int, int]]:  # fmt: skip
        pads = [dilation * (side // 2) for side in kernel]
        sides = [
            (s + 2 * p - dilation * (k - 1) - 1) // stride + 1 for s, p, k in zip(shape[1:], pads, kernel, strict=True)
        ]
        inputs = [name, self.weights(outputs, shape[0] // group, *kernel)]
        if self.random.random() < 0.8:
            inputs.append(self.constant(self.random.normal(0, 0.3, outputs)))
        made = self.node("Conv", inputs, group=group, strides=[stride, stride], pads=pads * 2, dilations=[dilation] * 2)
        return made, (outputs, *sides)

    def grow(self) -> None:
        pieces = [
            self.pointwise, self.depthwise, self.dense, self.ghost, self.ghost, self.residual, self.gate, self.shift,
            self.pool, self.upscale, self.cut, self.join, self.product, self.affine,
        ]  # fmt: skip
        pieces[self.random.integers(len(pieces))]()
        self.earlier.append((self.name, self.shape))

    def pointwise(self) -> None:
        made, self.shape = self.convolve(self.name, self.shape, int(self.random.integers(1, 50)), (1, 1))
        self.name = self.activated(made)

    def depthwise(self) -> None:
        kernels = [(3, 3), (3, 3), (5, 5), (1, 5), (5, 1), (7, 7)]
        kernel, stride = kernels[self.random.integers(len(kernels))], int(self.random.integers(1, 3))
        dilation = 2 if stride == 1 and self.random.random() < 0.2 else 1
        made, self.shape = self.convolve(self.name, self.shape, self.shape[0], kernel, stride, self.shape[0], dilation)
        self.name = self.activated(made)

    def dense(self) -> None:
        group = 2 if self.shape[0] % 2 == 0 and self.random.random() < 0.5 else 1
        outputs, stride = group * int(self.random.integers(1, 20)), int(self.random.integers(1, 3))
        made, self.shape = self.convolve(self.name, self.shape, outputs, (3, 3), stride, group)
        self.name = self.activated(made)

    def ghost(self) -> None:
        """Primary and cheap halves; a shortcut where the shape is that of an earlier tensor."""
        half = int(self.random.integers(1, 33))
        same = [
            one
            for one in [*self.earlier, (self.name, self.shape)]
            if one[1][1:] == self.shape[1:] and one[1][0] % 2 == 0
        ]
        shortcut = same[self.random.integers(len(same))] if same and self.random.random() < 0.6 else None
        half = half if shortcut is None else shortcut[1][0] // 2
        first, shape = self.convolve(self.name, self.shape, half, (1, 1))
        first = first if shortcut is not None and self.random.random() < 0.7 else self.activated(first)
        kernel = ((3, 3), (3, 3), (5, 5))[self.random.integers(3)]
        cheap, _ = self.convolve(first, shape, half, kernel, group=half)
        cheap = cheap if shortcut is not None else self.activated(cheap)
        self.name, self.shape = self.node("Concat", [first, cheap], axis=1), (2 * half, *shape[1:])
        if shortcut is not None:
            self.name = self.activated(self.node("Add", [self.name, shortcut[0]]))

    def residual(self) -> None:
        before, shape = self.name, self.shape
        self.depthwise()
        made, found = self.convolve(self.name, self.shape, shape[0], (1, 1))
        if found == shape:
            made = self.node("Add", [made, before] if self.random.random() < 0.5 else [before, made])
        self.name, self.shape = self.activated(made), found

    def gate(self) -> None:
        squeezed = self.node("ReduceMean", [self.name, self.constant([2, 3], np.int64)], keepdims=1)
        inner = max(1, self.shape[0] // 4)
        first, shape = self.convolve(squeezed, (self.shape[0], 1, 1), inner, (1, 1))
        made, _ = self.convolve(self.node("Relu", [first]), shape, self.shape[0], (1, 1))
        self.name = self.node("Mul", [self.name, self.node("HardSigmoid", [made], alpha=1 / 6, beta=0.5)])
        if self.random.random() < 0.7:
            self.pointwise()

    def shift(self) -> None:
        """The mix of a G-Ghost stage: a vector made of the map is added to it."""
        squeezed = self.node("GlobalAveragePool", [self.name])
        made, _ = self.convolve(squeezed, (self.shape[0], 1, 1), self.shape[0], (1, 1))
        self.name = self.activated(
            self.node("Add", [made, self.name] if self.random.random() < 0.5 else [self.name, made])
        )

    def pool(self) -> None:
        if min(self.shape[1:]) < 4:
            return
        kind = ("AveragePool", "MaxPool")[self.random.integers(2)]
        self.name = self.node(kind, [self.name], kernel_shape=[2, 2], strides=[2, 2])
        self.shape = (self.shape[0], self.shape[1] // 2, self.shape[2] // 2)

    def upscale(self) -> None:
        if max(self.shape[1:]) > 20:
            return
        scales = self.constant([1, 1, 2, 2])
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        self.name = self.node("Resize", [self.name, "", scales], **how)
        self.shape = (self.shape[0], self.shape[1] * 2, self.shape[2] * 2)

    def cut(self) -> None:
        if self.shape[0] < 2:
            return
        first = int(self.random.integers(0, self.shape[0] - 1))
        last = int(self.random.integers(first + 1, self.shape[0] + 1))
        bounds = [self.constant([value], np.int64) for value in (first, last, 1, 1)]
        self.name, self.shape = self.node("Slice", [self.name, *bounds]), (last - first, *self.shape[1:])

    def join(self) -> None:
        same = [one for one in self.earlier if one[1][1:] == self.shape[1:] and one[0] != self.name]
        if not same:
            return
        other, shape = same[self.random.integers(len(same))]
        self.name, self.shape = self.node("Concat", [self.name, other], axis=1), (self.shape[0] + shape[0], *shape[1:])

    def product(self) -> None:
        same = [name for name, shape in self.earlier if shape == self.shape and name != self.name]
        if same:
            self.name = self.node("Mul", [self.name, same[self.random.integers(len(same))]])

    def affine(self) -> None:
        scale = self.constant(self.random.normal(1, 0.2, (1, self.shape[0], 1, 1)))
        shift = self.constant(self.random.normal(0, 0.2, (1, self.shape[0], 1, 1)))
        self.name = self.node("Add", [self.node("Mul", [self.name, scale]), shift])

    def finished(self) -> onnx.ModelProto:
        outputs = [(self.name, (1, *self.shape))]
        if self.random.random() < 0.7:
            count = int(self.random.integers(1, 40))
            pooled = self.node("GlobalAveragePool", [self.name])
            flat = self.node("Flatten", [pooled])
            made = self.node(
                "Gemm", [flat, self.weights(count, self.shape[0]), self.constant(np.zeros(count))], transB=1
            )
            outputs = [(made, (1, count)), *(outputs if self.random.random() < 0.3 else [])]
        return model_of(self, outputs)


def model_of(graph: Graph, outputs: list[tuple[str, tuple[int, ...]]]) -> onnx.ModelProto:
    """Returns a checked model with the given outputs."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, *graph.size))
    made = helper.make_graph(graph.nodes, "random", [given], values, graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


@dataclass(frozen=True)
class Compiled:
    """One network of a library."""

    library: Any
    run: Any
    part: Any
    arena: int
    weights: bytes
    outputs: list[tuple[int, ...]]

    def __call__(self, image: NDArray[np.float32], *, threads: int = 0) -> list[NDArray[np.float32]]:
        """Computes one image, by a team where there is one."""
        arenas, weights = [aligned(self.arena) for _ in range(max(1, threads))], aligned(len(self.weights))
        for arena in arenas:
            arena[:] = 255  # not a number, wherever nothing was written
        weights[:] = np.frombuffer(self.weights, np.uint8)
        found = [np.full(shape, np.nan, np.float32) for shape in self.outputs]
        given, made, own = (_pointers(some) for some in ([image], found, arenas))
        place = ctypes.c_void_p(weights.ctypes.data)
        if not threads:
            assert self.run(place, ctypes.c_void_p(arenas[0].ctypes.data), given, made) == 0
            return found
        new = self.library.ghost_threads_new
        new.restype = ctypes.c_void_p
        team = ctypes.c_void_p(new(threads))
        assert self.library.ghost_threads_run(team, self.part, place, own, given, made) == 0
        self.library.ghost_threads_free(team)
        return found


def _pointers(arrays: list[NDArray[Any]]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(one.ctypes.data for one in arrays))


def sources_of(model: onnx.ModelProto, place: int) -> tuple[str, bytes]:
    """Returns a network's source, whose names end with its place, and its weights."""
    steps, inputs, outputs = finished(lower(model))
    source = Source(make_plan(steps, inputs, outputs), inputs, outputs)
    names = "".join(f"#define {name} {name}_{place}\n" for name in _NAMES)
    declared = "".join(f'{one} __attribute__((visibility("default")));\n' for one in _DECLARED)
    return "".join((names, declared, source.model, *(f"#undef {name}\n" for name in _NAMES), "\n")), source.weights


def compile_all(models: list[onnx.ModelProto], folder: Path, level: str | None = None) -> list[Compiled]:
    """Compiles networks into one library: the functions of each are renamed."""
    made = [sources_of(model, place) for place, model in enumerate(models)]
    folder.mkdir()
    files = write_sources("\n".join([HEAD, *(text for text, _ in made)]), folder / "source")
    library = folder / f"{hashlib.sha256(folder.name.encode()).hexdigest()[:8]}.so"
    build([one for one in files if one.suffix == ".c" and one.name != "main.c"], level or default_levels()[0], library)
    loaded = ctypes.CDLL(str(library))
    shutil.rmtree(folder / "source")
    return [
        Compiled(
            loaded,
            getattr(loaded, f"ghost_run_{place}"),
            getattr(loaded, f"ghost_run_part_{place}"),
            _size(getattr(loaded, f"ghost_arena_bytes_{place}")),
            weights,
            [tuple(size.dim_value for size in value.type.tensor_type.shape.dim) for value in model.graph.output],
        )
        for place, (model, (_, weights)) in enumerate(zip(models, made, strict=True))
    ]


def _size(function: Any) -> int:
    function.restype = ctypes.c_size_t
    return int(function())


def in_float64(model: onnx.ModelProto, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Returns what PyTorch computes in float64."""
    return _computed(model, inputs, torch.float64)


def in_float32(model: onnx.ModelProto, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Returns what PyTorch computes in float32."""
    return _computed(model, inputs, torch.float32)


def _computed(model: onnx.ModelProto, inputs: list[NDArray[Any]], kind: torch.dtype) -> list[NDArray[Any]]:
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    write_hard_sigmoids(plain)
    for node in plain.graph.node:
        if node.op_type == "Cast":
            node.attribute[0].i = TensorProto.DOUBLE if kind == torch.float64 else TensorProto.FLOAT
    given = [torch.from_numpy(one) for one in inputs]
    with torch.no_grad():
        found = OnnxNetwork(plain).to(kind)(*(one if one.dtype == torch.uint8 else one.to(kind) for one in given))
    return [one.numpy() for one in found]

"""Activations of a float graph, in chunks of bounded size.

The wanted tensors become outputs of the graph, and as many images as fit are run together. Where one run of the graph's
own batch gives too much, the tensors are taken in groups, each with its own session: an engine holds all outputs
of a graph until the run ends, whether they are fetched or not.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ghostdeploy.batches import by_name
from ghostdeploy.deploy.quantize.simulate import TOGETHER, GraphRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch

HELD_BYTES = 256 << 20
"""Activations held at a time."""


class Activations:
    """Gives activations of a float graph.

    Args:
        model: Float graph; copied.
        tensors: What it gives, the graph's inputs included.
        threads: Threads of the engine; None is one per core.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], *, threads: int | None = None) -> None:
        self._inputs = [value.name for value in model.graph.input]
        self._inside = [name for name in tensors if name not in self._inputs]
        self._given = [name for name in self._inputs if name in tensors]
        self._makers = {name: node.name or node.op_type for node in model.graph.node for name in node.output}
        exposed = copy.deepcopy(model)
        if self._inside:
            del exposed.graph.output[:]
            kind = onnx.TensorProto.FLOAT
            exposed.graph.output.extend(onnx.helper.make_tensor_value_info(n, kind, None) for n in self._inside)
        self._runner = GraphRunner(exposed, fused=True, threads=threads)
        held = sum(image_bytes(model, self._inside).values())
        self._images = max(1, min(TOGETHER, HELD_BYTES // max(1, held)))

    def __call__(self, batch: Batch) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yields the name and the values (N, …) of every tensor, some images at a time."""
        for start in range(0, len(batch), self._images):
            piece = batch[start : start + self._images]
            if self._given:
                given = by_name(piece, self._inputs)
                yield from ((name, given[name]) for name in self._given)
            if self._inside:
                yield from zip(self._inside, self._runner(piece), strict=True)

    def maker(self, name: str) -> str:
        """Returns the name of the node that writes a tensor."""
        return str(self._makers.get(name, "the input"))


def in_groups(model: onnx.ModelProto, tensors: Sequence[str]) -> list[list[str]]:
    """Returns the tensors in runs of up to `HELD_BYTES` for one run of the graph, but at least one."""
    sizes = image_bytes(model, tensors)
    batch = max(1, model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)  # 0: it is free
    groups: list[list[str]] = []
    held = HELD_BYTES
    for name in tensors:
        size = sizes[name] * batch
        if held + size > HELD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def image_bytes(model: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, int]:
    """Returns the bytes of each float32 tensor per image; `HELD_BYTES` where its shape is not known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = dict.fromkeys(tensors, HELD_BYTES)
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
        if value.name in found and all(dims):
            found[value.name] = 4 * int(np.prod(dims))
    return found

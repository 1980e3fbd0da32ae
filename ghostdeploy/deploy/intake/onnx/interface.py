"""Inputs and outputs of an ONNX graph: what is accepted, and how batch, image size and pixels are written into it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.batches import by_name
from ghostdeploy.convert.graph.file import write_constant_outputs
from ghostdeploy.convert.module_names import numbered
from ghostdeploy.errors import CheckpointError
from ghostdeploy.preprocess import MAX_SIDE, Preprocess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ghostdeploy.batches import Batch


_READY = "give ready inputs: --calib inputs.npz with one float32 array (N, …)"


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The one input: float32 (N, C, H, W)."""

    name: str
    channels: int
    """1 or 3."""
    size: int | tuple[int, int] | None
    """Height and width, one number where they are equal; None where any are taken."""


def sizes_of(model: onnx.ModelProto, batch: Batch) -> dict[str, tuple[int, ...]]:
    """Returns the sizes of each input in a batch, without the batch."""
    arrays = by_name(batch, [value.name for value in model.graph.input])
    return {name: array.shape[1:] for name, array in arrays.items()}


def drop_constant_inputs(model: onnx.ModelProto) -> None:
    """Takes initializers out of the inputs, in place: before version 4 of the format each had to be one."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def write_every_output(model: onnx.ModelProto, path: Path) -> None:
    """Gives outputs that are constants a node that writes them, in place: readers expect one.

    Raises:
        CheckpointError: An output is the graph's input, which no node can write.
    """
    taken = {value.name for value in model.graph.input}
    for value in model.graph.output:
        if value.name in taken:
            raise CheckpointError(
                f"{path} returns its input {value.name!r} as an output, expected computed outputs",
                hint="leave that output out: the caller has it already",
            )
    write_constant_outputs(model.graph)


def refuse_inputs(model: onnx.ModelProto, path: Path) -> None:
    """Refuses inputs that no arrays can feed.

    Raises:
        CheckpointError: There is none, or one is not float32, of an unknown number of dimensions, or huge.
    """
    if not model.graph.input:
        raise CheckpointError(f"{path} has 0 inputs (none), expected one image")
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.FLOAT:
            kind = _kind(tensor.elem_type)
            other = kind in ("float16", "bfloat16", "double")
            raise CheckpointError(
                f"input {value.name!r} of {path} is {kind}, expected normalised float32 (N, 3, H, W)",
                hint="give the float32 ONNX file it was made from; --fp16 converts that to half precision"
                if other
                else "export the network alone; --input uint8-nhwc adds the normalisation",
            )
        if not tensor.HasField("shape") or not tensor.shape.dim:
            count = "0" if tensor.HasField("shape") else "an unknown number of"
            raise CheckpointError(f"input {value.name!r} of {path} has {count} dimensions, expected (N, 3, H, W)")
        sides = [dim.dim_value for dim in tensor.shape.dim[2:]]
        if max(sides, default=0) > MAX_SIDE:
            text = "×".join(str(dim.dim_value or "any") for dim in tensor.shape.dim)
            raise CheckpointError(
                f"input {value.name!r} of {path} is {text}, expected at most {MAX_SIDE} pixels a side"
            )


def _kind(number: int) -> str:
    """Returns what an input holds, in words."""
    if not number:
        return "no tensor"
    known = TensorProto.DataType.values()
    return TensorProto.DataType.Name(number).lower() if number in known else f"of an unknown type {number}"


def image_input(model: onnx.ModelProto, path: Path) -> ImageInput:
    """Returns the input of a graph that an image feeds.

    Args:
        model: Its inputs have been checked, see `refuse_inputs`.
        path: Of the file.

    Raises:
        CheckpointError: There is not exactly one input, or it is not an image of one or three channels.
    """
    inputs = model.graph.input
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise CheckpointError(
            f"{path} has {len(inputs)} inputs ({names}), expected one image", hint=f"{_READY} for each of {names}"
        )
    value = inputs[0]
    dims = value.type.tensor_type.shape.dim
    ready = f"{_READY} called {value.name}"
    if len(dims) != 4:
        raise CheckpointError(
            f"input {value.name!r} of {path} has {len(dims)} dimensions, expected (N, 3, H, W)", hint=ready
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]
    _, channels, height, width = sizes
    height, width = height or width, width or height
    text = "×".join("any" if size is None else str(size) for size in sizes)
    if channels not in (1, 3):
        hint = "export it with channels first (NCHW)" if sizes[3] in (1, 3) else ready
        raise CheckpointError(
            f"input {value.name!r} of {path} is {text}, expected N×3×H×W, or N×1×H×W for gray", hint=hint
        )
    size = height if height is None or width is None or height == width else (height, width)
    return ImageInput(value.name, channels, size)


def batch_of(model: onnx.ModelProto) -> int | None:
    """Returns the batch that is written into a graph; None where any number is taken."""
    return model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None


def preprocess_of(image: ImageInput) -> Preprocess:
    """Returns how an image becomes the input, as far as a graph says it."""
    size: dict[str, Any] = {} if image.size is None else {"size": image.size}
    gray: dict[str, Any] = {"color": "gray", "channels": 1, "mean": (0.0,), "std": (1.0,)}
    return Preprocess(**size, **(gray if image.channels == 1 else {}))


def separate_nodes(model: onnx.ModelProto) -> None:
    """Gives nodes of one name, which ONNX allows and ONNX Runtime refuses, names of their own; changed in place."""
    taken: set[str] = set()
    for node in model.graph.node:
        node.name = numbered(node.name, taken) if node.name else ""
        taken.add(node.name)


def with_shape(model: onnx.ModelProto, batch: int | None, sizes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Returns a copy for that batch and those sizes, with all other shapes inferred again.

    Args:
        model: Its inputs are (N, …).
        batch: Images per inference; None leaves it free.
        sizes: Of each input by name, without the batch.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    del graph.value_info[:]
    for value in graph.input:
        first, *rest = value.type.tensor_type.shape.dim
        first.Clear()
        if batch is None:
            first.dim_param = "batch"
        else:
            first.dim_value = batch
        for dim, size in zip(rest, sizes[value.name], strict=True):
            dim.Clear()
            dim.dim_value = size
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def with_pixels(model: onnx.ModelProto, spec: Preprocess) -> onnx.ModelProto:
    """Returns a copy that takes uint8 pixels (N, H, W, C) and normalises them, under the name of the old input.

    (x/w − mean_c) / std_c  =  x · 1/(w std_c) − mean_c/std_c,   w = 255 with unit 0-1, 1 with unit 0-255
    """
    model = copy.deepcopy(model)
    graph = model.graph
    value = graph.input[0]
    inner = f"{value.name}/normalised"
    for node in graph.node:
        node.input[:] = [inner if name == value.name else name for name in node.input]
    mean, std = (np.asarray(values, np.float64).reshape(1, -1, 1, 1) for values in (spec.mean, spec.std))
    arrays = {f"{inner}/scale": 1 / (255 / spec.white * std), f"{inner}/shift": -mean / std}
    graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items())
    steps = (
        helper.make_node("Transpose", [value.name], [f"{inner}/nchw"], perm=[0, 3, 1, 2], name=f"{inner}/Transpose"),
        helper.make_node("Cast", [f"{inner}/nchw"], [f"{inner}/float"], to=TensorProto.FLOAT, name=f"{inner}/Cast"),
        helper.make_node("Mul", [f"{inner}/float", f"{inner}/scale"], [f"{inner}/scaled"], name=f"{inner}/Mul"),
        helper.make_node("Add", [f"{inner}/scaled", f"{inner}/shift"], [inner], name=f"{inner}/Add"),
    )
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    dims = value.type.tensor_type.shape.dim
    order = [copy.deepcopy(dims[axis]) for axis in (0, 2, 3, 1)]
    for dim, new in zip(dims, order, strict=True):
        dim.CopyFrom(new)
    value.type.tensor_type.elem_type = TensorProto.UINT8
    return model

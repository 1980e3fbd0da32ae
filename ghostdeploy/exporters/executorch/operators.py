"""ONNX operators that look at no window: arithmetic, activations, reductions, and what moves or chooses values."""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from onnx import TensorProto
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ghostdeploy.exporters.executorch.call import Call

    Operator = Callable[[Call], Any]

_TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.BOOL: torch.bool,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
}
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def of_all(function: Callable[..., Any]) -> Operator:
    """Returns the form of an operator that PyTorch has for the same tensors in the same order."""
    return lambda call: function(*call.given)


def folded(function: Callable[[Any, Any], Any]) -> Operator:
    """Returns the form of an operator that takes any number of tensors."""
    return lambda call: reduce(function, call.given)


def cast(call: Call) -> torch.Tensor:
    """`Cast`."""
    wanted = _TYPES.get(call.attributes["to"])
    if wanted is None:
        raise call.refused(f"makes {TensorProto.DataType.Name(call.attributes['to']).lower()}")
    return call.data.to(wanted)


def clip(call: Call) -> torch.Tensor:
    """`Clip`."""
    low, high = (call.attributes.get(name, call.value(place)) for name, place in (("min", 1), ("max", 2)))
    if low is None and high is None:
        return call.data
    return torch.clamp(call.data, *(None if end is None else float(end) for end in (low, high)))


def gelu(call: Call) -> torch.Tensor:
    """`Gelu`."""
    return functional.gelu(call.data, approximate=call.text("approximate", "none"))


def elu(call: Call) -> torch.Tensor:
    """`Elu`."""
    return functional.elu(call.data, float(call.attributes.get("alpha", 1.0)))


def leaky_relu(call: Call) -> torch.Tensor:
    """`LeakyRelu`."""
    return functional.leaky_relu(call.data, float(call.attributes.get("alpha", 0.01)))


def prelu(call: Call) -> torch.Tensor:
    """`PRelu`; the slopes are one, or one per channel."""
    slopes = call.given[1]
    if slopes.numel() not in (1, call.data.shape[1]):
        raise call.refused("has slopes per pixel")
    return functional.prelu(call.data, slopes.reshape(-1))


def softmax(call: Call) -> torch.Tensor:
    """`Softmax`."""
    return functional.softmax(call.data, _axis(call, -1))


def log_softmax(call: Call) -> torch.Tensor:
    """`LogSoftmax`."""
    return functional.log_softmax(call.data, _axis(call, -1))


def normalize_layer(call: Call) -> torch.Tensor:
    """`LayerNormalization`."""
    shape = list(call.data.shape[_axis(call, -1) % call.data.ndim :])
    eps = float(call.attributes.get("epsilon", 1e-5))
    return functional.layer_norm(call.data, shape, call.given[1].reshape(shape), call.optional(2), eps)


def normalize_instance(call: Call) -> torch.Tensor:
    """`InstanceNormalization`."""
    eps = float(call.attributes.get("epsilon", 1e-5))
    return functional.instance_norm(call.data, weight=call.given[1], bias=call.given[2], eps=eps)


def normalize_batch(call: Call) -> torch.Tensor:
    """`BatchNormalization` of a trained network."""
    scale, shift, mean, variance = call.given[1:5]
    eps = float(call.attributes.get("epsilon", 1e-5))
    return functional.batch_norm(call.data, mean, variance, scale, shift, training=False, eps=eps)


def reduction(function: Callable[..., Any]) -> Operator:
    """Returns the form of a reduction along axes that are an attribute or an input."""

    def reduced(call: Call) -> Any:
        axes = call.numbers("axes", 1)
        if not axes and call.attributes.get("noop_with_empty_axes", 0):
            return call.data
        dims = list(range(call.data.ndim)) if not axes else [axis % call.data.ndim for axis in axes]
        found = function(call.data, dims)
        return found if call.attributes.get("keepdims", 1) else without(found, dims)

    return reduced


def place_of(function: Callable[..., Any]) -> Operator:
    """Returns the form of `ArgMax` or `ArgMin`."""

    def found(call: Call) -> Any:
        if call.attributes.get("select_last_index", 0):
            raise call.refused("takes the last of equal values")
        return function(call.data, _axis(call, 0), keepdim=bool(call.attributes.get("keepdims", 1)))

    return found


def reshape(call: Call) -> torch.Tensor:
    """`Reshape`; 0 keeps a dimension."""
    wanted = call.numbers("shape", 1) or []
    kept = not call.attributes.get("allowzero", 0)
    return call.data.reshape([int(call.data.shape[i]) if one == 0 and kept else one for i, one in enumerate(wanted)])


def flatten(call: Call) -> torch.Tensor:
    """`Flatten` to two dimensions."""
    axis = _axis(call, 1)
    return call.data.reshape(math.prod(call.data.shape[:axis]), -1)


def squeeze(call: Call) -> torch.Tensor:
    """`Squeeze`."""
    axes = call.numbers("axes", 1)
    return without(call.data, [i for i, size in enumerate(call.data.shape) if size == 1] if axes is None else axes)


def unsqueeze(call: Call) -> torch.Tensor:
    """`Unsqueeze`."""
    axes, shape = call.numbers("axes", 1) or [], list(call.data.shape)
    for axis in sorted(axis % (call.data.ndim + len(axes)) for axis in axes):
        shape.insert(axis, 1)
    return call.data.reshape(shape)


def without(data: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Returns data without axes of length 1, as a reshape: XNNPACK has no form of `squeeze`."""
    gone = {axis % data.ndim for axis in axes}
    return data.reshape([size for axis, size in enumerate(data.shape) if axis not in gone])


def transpose(call: Call) -> torch.Tensor:
    """`Transpose`."""
    return call.data.permute(call.attributes.get("perm", list(reversed(range(call.data.ndim)))))


def cut(call: Call) -> torch.Tensor:
    """`Slice` with fixed ends."""
    starts, ends = call.numbers("starts", 1) or [], call.numbers("ends", 2) or []
    axes, steps = call.numbers("axes", 3), call.numbers("steps", 4)
    found = call.data
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = place if axes is None else axes[place], 1 if steps is None else steps[place]
        size = int(found.shape[axis])
        first, last, _ = slice(start, end, step).indices(size)
        if step < 0:
            found = found.index_select(axis, torch.arange(first, last, step))
        elif (first, last, step) != (0, size, 1):
            found = torch.ops.aten.slice.Tensor(found, axis, first, last, step)
    return found


def split(call: Call) -> list[torch.Tensor]:
    """`Split`."""
    axis, count = _axis(call, 0), len(call.node.output)
    size = int(call.data.shape[axis])
    sizes = call.numbers("split", 1) or [min(-(-size // count), size - i * -(-size // count)) for i in range(count)]
    ends = [sum(sizes[: place + 1]) for place in range(count)]
    slices = torch.ops.aten.slice.Tensor
    return [slices(call.data, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def gather(call: Call) -> torch.Tensor:
    """`Gather` along an axis."""
    axis, places, size = _axis(call, 0) % call.data.ndim, call.given[1], int(call.data.shape[_axis(call, 0)])
    known = call.static[1]
    if known is not None and known.ndim == 0:
        return call.data.select(axis, int(known) % size)
    places = torch.where(places < 0, places + size, places)
    found = call.data.index_select(axis, places.reshape(-1))
    return found.reshape(*call.data.shape[:axis], *places.shape, *call.data.shape[axis + 1 :])


def gather_elements(call: Call) -> torch.Tensor:
    """`GatherElements`."""
    return call.data.gather(_axis(call, 0), call.given[1])


def largest(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """`TopK` with a fixed count."""
    (count,) = call.numbers("k", 1) or [1]
    ordered, high = bool(call.attributes.get("sorted", 1)), bool(call.attributes.get("largest", 1))
    values, places = torch.topk(call.data, count, _axis(call, -1), high, ordered)
    return values, places


def expand(call: Call) -> torch.Tensor:
    """`Expand` to a fixed shape."""
    wanted, given = call.numbers("shape", 1) or [], list(call.data.shape)
    rank = max(len(wanted), len(given))
    pairs = zip([1] * (rank - len(wanted)) + wanted, [1] * (rank - len(given)) + given, strict=True)
    return call.data.expand([size if one == 1 else one for one, size in pairs])


def tile(call: Call) -> torch.Tensor:
    """`Tile`."""
    return call.data.repeat(call.numbers("repeats", 1) or [1])


def pad(call: Call) -> torch.Tensor:
    """`Pad` by fixed amounts."""
    pads, rank = call.numbers("pads", 1) or [], call.data.ndim
    if call.optional(3) is not None:
        raise call.refused("names its axes")
    around = [one for axis in reversed(range(rank)) for one in (pads[axis], pads[axis + rank])]
    mode, value = _PAD_MODES[call.text("mode", "constant")], call.value(2)
    if mode == "constant":
        return functional.pad(call.data, around, value=0.0 if value is None else float(value))
    return functional.pad(call.data, around[: 2 * (rank - 2)], mode=mode)


def depth_to_space(call: Call) -> torch.Tensor:
    """`DepthToSpace`."""
    side = call.attributes["blocksize"]
    if call.text("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(call.data, side)
    batch, channels, height, width = call.data.shape
    parts = call.data.reshape(batch, side, side, channels // side**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // side**2, height * side, width * side)


def _axis(call: Call, default: int) -> int:
    return int(call.attributes.get("axis", default))


OPERATORS: dict[str, Operator] = {
    "Abs": of_all(torch.abs),
    "Add": of_all(torch.add),
    "And": of_all(torch.logical_and),
    "ArgMax": place_of(torch.argmax),
    "ArgMin": place_of(torch.argmin),
    "BatchNormalization": normalize_batch,
    "Cast": cast,
    "Ceil": of_all(torch.ceil),
    "Clip": clip,
    "Concat": lambda call: torch.cat(call.given, _axis(call, 0)),
    "Cos": of_all(torch.cos),
    "DepthToSpace": depth_to_space,
    "Div": of_all(torch.div),
    "Dropout": lambda call: call.data,
    "Elu": elu,
    "Equal": of_all(torch.eq),
    "Erf": of_all(torch.erf),
    "Exp": of_all(torch.exp),
    "Expand": expand,
    "Flatten": flatten,
    "Floor": of_all(torch.floor),
    "Gather": gather,
    "GatherElements": gather_elements,
    "Gelu": gelu,
    "Greater": of_all(torch.gt),
    "GreaterOrEqual": of_all(torch.ge),
    "HardSwish": of_all(functional.hardswish),
    "Identity": lambda call: call.data,
    "InstanceNormalization": normalize_instance,
    "LayerNormalization": normalize_layer,
    "LeakyRelu": leaky_relu,
    "Less": of_all(torch.lt),
    "LessOrEqual": of_all(torch.le),
    "Log": of_all(torch.log),
    "LogSoftmax": log_softmax,
    "Max": folded(torch.maximum),
    "Min": folded(torch.minimum),
    "Mish": of_all(functional.mish),
    "Mul": of_all(torch.mul),
    "Neg": of_all(torch.neg),
    "Not": of_all(torch.logical_not),
    "Or": of_all(torch.logical_or),
    "PRelu": prelu,
    "Pad": pad,
    "Pow": of_all(torch.pow),
    "Reciprocal": of_all(torch.reciprocal),
    "ReduceL2": reduction(lambda data, dims: torch.linalg.vector_norm(data, dim=dims, keepdim=True)),
    "ReduceMax": reduction(lambda data, dims: data.amax(dims, keepdim=True)),
    "ReduceMean": reduction(lambda data, dims: data.mean(dims, keepdim=True)),
    "ReduceMin": reduction(lambda data, dims: data.amin(dims, keepdim=True)),
    "ReduceSum": reduction(lambda data, dims: data.sum(dims, keepdim=True)),
    "ReduceSumSquare": reduction(lambda data, dims: (data * data).sum(dims, keepdim=True)),
    "Relu": of_all(functional.relu),
    "Reshape": reshape,
    "Round": of_all(torch.round),
    "Sigmoid": of_all(torch.sigmoid),
    "Sign": of_all(torch.sign),
    "Sin": of_all(torch.sin),
    "Slice": cut,
    "Softmax": softmax,
    "Softplus": of_all(functional.softplus),
    "Split": split,
    "Sqrt": of_all(torch.sqrt),
    "Squeeze": squeeze,
    "Sub": of_all(torch.sub),
    "Sum": folded(torch.add),
    "Tanh": of_all(torch.tanh),
    "Tile": tile,
    "TopK": largest,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Where": of_all(torch.where),
}

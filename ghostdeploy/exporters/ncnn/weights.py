"""The bytes of a `model.bin`: arrays one after the other, as the layers of the file read them.

    tagged array      tag, numbers, filled up to four bytes     weights of layers
        0             float32
        0x01306B47    float16
        0x000D4B38    int8
    plain array       float32                                   biases, scales, constants

INT8, of a layer y = W·x + b with data x and n output features:

    q_W = round(W·s_W), one s_W per feature;   q_x = round(x·s_x), one s_x
    the layer's array q_W, its bias, then s_W and s_x;   y = (q_W·q_x) / (s_W·s_x) + b,   products added in 32 bits

pnnx would write weights below 6.1e-5 as zero in half precision; NumPy rounds them to the numbers that float16 has
there. A layer with weights above 65504 keeps float32.
Source: ncnn, `src/modelbin.cpp`, `src/layer/convolution.cpp`, `convolutiondepthwise.cpp`, `innerproduct.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.convert.base import RefusedError
from ghostdeploy.deploy.prove.tolerance import FP16_LARGEST
from ghostdeploy.runtimes.ncnn.costs import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.runtimes.ncnn.param import Layer

TAGS = {"float32": 0, "float16": 0x01306B47, "int8": 0x000D4B38}
_TYPES = {tag: name for name, tag in TAGS.items()}


@dataclass(frozen=True, slots=True)
class Arrays:
    """What one layer reads."""

    weights: NDArray[Any] | None
    """Tagged; None where the layer has none."""
    plain: tuple[NDArray[np.float32], ...] = ()

    def packed(self) -> bytes:
        """Returns the bytes."""
        parts = [] if self.weights is None else [_tagged(self.weights)]
        return b"".join((*parts, *(one.astype("<f4").tobytes() for one in self.plain)))


def _tagged(weights: NDArray[Any]) -> bytes:
    data = weights.tobytes()
    return np.uint32(TAGS[weights.dtype.name]).tobytes() + data + b"\0" * (-len(data) % 4)


def unpack(layers: Sequence[Layer], data: bytes) -> list[Arrays]:
    """Returns what each layer reads.

    Raises:
        RefusedError: The layers that are known here read something else.
    """
    found, place = [], 0
    for layer in layers:
        weights = None
        if layer.kind in WEIGHTS:
            tag = _TYPES.get(int.from_bytes(data[place : place + 4], "little"))
            if tag is None:
                raise RefusedError(f"the weights of ncnn's layer {layer.name} are of an unknown type")
            weights = np.frombuffer(data, tag, layer.number(WEIGHTS[layer.kind]), place + 4)
            place += 4 + weights.nbytes + -weights.nbytes % 4
        plain = []
        for count in _plain(layer):
            if place + 4 * count > len(data):
                raise RefusedError(f"ncnn's layer {layer.kind} {layer.name} reads more weights than there are")
            plain.append(np.frombuffer(data, "<f4", count, place))
            place += 4 * count
        found.append(Arrays(weights, tuple(plain)))
    if place != len(data):
        kinds = sorted({layer.kind for layer in layers} - WEIGHTS.keys())
        raise RefusedError(f"a layer with weights that ghostdeploy cannot store smaller, one of {', '.join(kinds)}")
    return found


def _plain(layer: Layer) -> list[int]:
    """Returns the sizes of the plain arrays that a layer reads."""
    kind, number = layer.kind, layer.number
    if kind in WEIGHTS:
        bias = number(0) if number(1 if kind == "InnerProduct" else 5) else 0
        groups = number(7, 1) if kind == "ConvolutionDepthWise" else number(0)
        return [*([bias] if bias else []), *([groups, 1] if number(8) else [])]
    if kind == "MemoryData":
        sizes = [size for size in map(number, (0, 1, 11, 2)) if size]
        return [int(np.prod(sizes))]
    if kind == "PReLU":
        return [number(0)]
    if kind == "BatchNorm":
        return [number(0)] * 4
    if kind == "Scale":
        return [number(0)] * (2 if number(1) else 1)
    if kind in ("LayerNorm", "InstanceNorm"):
        return [number(0)] * (2 * number(2, 1))
    return [number(1)] * (2 * number(3, 1)) if kind == "GroupNorm" else []


def in_half(arrays: Iterable[Arrays]) -> list[Arrays]:
    """Returns the arrays with the weights in half precision where it holds them."""
    return [
        one
        if one.weights is None or not one.weights.size or np.abs(one.weights).max() > FP16_LARGEST
        else replace(one, weights=one.weights.astype(np.float16))
        for one in arrays
    ]

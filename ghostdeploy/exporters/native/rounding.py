"""Q/DQ pairs as maps of bytes: what a pair rounds is stored as bytes, and a layer between two pairs is one of integers.

    x ≈ s · (q − z)                               q of 8 bits, one scale s and zero point z for a map
    y = Σ (q − z) · w · s · s_w[n] + b[n]         w of 8 bits, one scale for each output n
    q' = round((Σ q · w + b'[n]) · f[n]) + z'     b' = b / (s · s_w) − z · Σ w,  f = s · s_w / s'

The sum is one of 32 bits, f one float32 number; round takes halves to the even number. Clipping to 0…255 does the work
of a ReLU whose pair has z' = 0, and where a ReLU stands before another pair, the lower limit is z'.

A depthwise sum is computed in float32, exactly, where no partial sum reaches 2^24; else the layer goes the dense way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.convert.base import RefusedError, listed
from ghostdeploy.exporters.native.steps import NOTHING, Activation, Grid, Integers, Map, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ghostdeploy.exporters.native.lowering import Lowering

    Given = dict[str, Any]

_EXACT = 2**24
_LAYERS = ("POINTWISE", "DEPTHWISE", "DENSE", "VECTOR")
_ROUNDS = ("ADD", "SHIFT", "MUL", "SCALE", "AFFINE", "ACTIVATE", "COPY", "PIXELS", "MEAN")
"""Steps without weights of integers that can write bytes."""
_BEHIND = (NOTHING, Activation("RELU"))
"""What a depthwise layer can do before it rounds."""


def quantize(to: Lowering, node: Any, _: Given) -> None:
    """Lets a map be stored as bytes, in what writes it where nobody needs its floats."""
    name, grid = node.input[0], _grid(to, node)
    data = to.maps[name]
    if data.grid == grid:
        to.alias(node.output[0], data)
        return
    step = to.writer(data)
    alone = data.grid is None and data.home is None and to.uses(data) == 1 and step is not None
    if alone and step is not None and (step.integers is not None or step.kind in _ROUNDS):
        data.rounded = grid
        to.alias(node.output[0], data)
        return
    made = to.new_like(node.output[0], data)
    made.rounded = grid
    kind = "LOAD" if data in to.inputs and not data.is_vector else "COPY"
    to.add(Step(kind=kind, name=node.name, reads=[data], writes=made))


def dequantize(to: Lowering, node: Any, given: Given) -> None:
    """Takes the bytes themselves; weights that are stored as integers have one scale for each output."""
    name = node.input[0]
    if name in to.maps:
        to.alias(node.output[0], to.maps[name])
        return
    codes, scales, *zeros = (to.constants.get(one) for one in node.input)
    if codes is None or scales is None:
        raise RefusedError(f"native dequantizes with constant scales; {node.name} has others")
    axis = given.get("axis", 1) % max(1, codes.ndim)
    fits = scales.size == 1 or scales.shape == codes.shape[axis : axis + 1]
    if codes.dtype not in (np.int8, np.int32) or not fits or any(map(np.any, zeros)):
        raise RefusedError(
            f"native has signed integers without zero points, one scale per output; {node.name} has others"
        )
    spread = scales.reshape([-1 if place == axis else 1 for place in range(codes.ndim)])
    to.constants[node.output[0]] = codes.astype(np.float32) * spread
    to.codes[node.output[0]] = (codes, scales.astype(np.float32), axis)


def _grid(to: Lowering, node: Any) -> Grid:
    scale, zero = (to.constants.get(name) for name in node.input[1:3])
    if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8:
        raise RefusedError(f"native rounds to uint8 with one constant scale; {node.name} has others")
    return Grid(float(scale.ravel()[0]), int(zero.ravel()[0]))


def floats(to: Lowering, name: str) -> Map:
    """Returns a map with the floats of a tensor."""
    data = to.maps[name]
    if data.grid is None:
        return data
    if data not in to.restored:
        to.restored[data] = made = Map(f"{data.name}/float", data.height, data.width, data.channels)
        to.add(Step(kind="COPY", name=data.name, reads=[data], writes=made))
    return to.restored[data]


def integers(to: Lowering, node: Any, data: Map, *, transposed: bool = False) -> Integers | None:
    """Returns the weights of a layer of integers, None where its data or its weights are floats.

    Args:
        to: The lowering.
        node: Of the layer.
        data: What it reads.
        transposed: The weights lie as (inputs, outputs).
    """
    codes = to.codes.get(node.input[1])
    if data.grid is None or codes is None or codes[0].dtype != np.int8:
        return None
    weights = codes[0].T if transposed else codes[0]
    scales = np.broadcast_to(codes[1].ravel(), (len(weights),)).astype(np.float64)
    factor = scales * data.grid.scale
    bias = np.zeros(len(weights))
    if len(node.input) > 2 and node.input[2]:
        bias = np.broadcast_to(to.constants[node.input[2]].astype(np.float64).ravel(), (len(weights),))
    flat = weights.reshape(len(weights), -1).astype(np.int64)
    whole = np.rint(bias / factor).clip(-(2**30), 2**30).astype(np.int64)
    return Integers(weights, whole, flat.sum(1), factor, data.grid)


def settle(steps: Iterable[Step]) -> None:
    """Lets layers go the ways that they can, when it is known what follows them."""
    for step in steps:
        found = step.integers
        if found is None or step.kind != "DEPTHWISE":
            continue
        # Σ q · w and z · Σ w are added in turn, each below 255 · Σ |w|.
        most = np.abs(found.bias) + 2 * 255 * np.abs(found.codes.reshape(len(found.bias), -1).astype(np.int64)).sum(1)
        if step.writes.grid is None or step.activation not in _BEHIND or most.max() >= _EXACT:
            step.kind = "DENSE"


def require_safe(steps: Iterable[Step]) -> None:
    """Checks that sums of two products stay within the 16 bits that AVX2 adds them in.

    Raises:
        RefusedError: They do not; the layers are named. Weights that the quantizer chose are safe.
    """
    found = [step.name for step in steps if step.integers is not None and _saturates(step, step.integers)]
    if found:
        raise RefusedError(f"native adds two products of bytes in 16 bits, which weights of {listed(found)} overflow")


def _saturates(step: Step, found: Integers) -> bool:
    if step.kind == "DEPTHWISE":
        return False
    codes = found.codes if found.codes.ndim == 2 else found.codes.transpose(0, 2, 3, 1)  # as they lie in strips
    flat = codes.reshape(len(codes), -1).astype(np.int64)
    pairs = 255 * np.pad(flat, ((0, 0), (0, flat.shape[1] % 2))).reshape(len(flat), -1, 2)
    limits = np.iinfo(np.int16)
    return bool(pairs.clip(0, None).sum(2).max() > limits.max or pairs.clip(None, 0).sum(2).min() < limits.min)

"""The C source of a network: its tables, and its weights in the order in which the kernels read them.

    pointwise, vector    strips of 16 outputs: (outputs / 16, inputs, 16); INT8: (outputs / 16, inputs / 4, 16, 4)
    dense                the same for each group, inputs in the order (row, column, channel)
    stem                 likewise in the order (channel, row, column)
    depthwise            (rows · columns, channels)

Everything is padded with zeros to whole strips, and begins at a cache line.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.exporters.native.plan import relations
from ghostdeploy.exporters.native.steps import STRIP, Integers, Map, Step, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.exporters.native.plan import Plan

_LINE = 64
"""Bytes."""
_FLOAT = 4
_WORD = 4
_IDENTITY = "@IDENTITY@"
_TOLD = re.compile('"[0-9a-f]{64}"')


def identity_of(model: str, weights: bytes) -> str:
    """Returns SHA-256 of tables and weights, from what was written of them.

    Args:
        model: `model.c`, which holds the identity that it was given.
        weights: `weights.bin`.
    """
    tables = _TOLD.sub(f'"{_IDENTITY}"', model)
    return hashlib.sha256(tables.encode() + weights).hexdigest()


def strips(weights: NDArray[Any]) -> NDArray[Any]:
    """Returns (outputs, inputs) as strips (outputs / 16, inputs, 16), padded with zeros."""
    outputs, inputs = weights.shape
    count = -(-outputs // STRIP)
    padded = np.zeros((count * STRIP, inputs), weights.dtype)
    padded[:outputs] = weights
    return np.ascontiguousarray(padded.reshape(count, STRIP, inputs).transpose(0, 2, 1))


def _words(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Returns strips whose words hold four inputs of an output: (outputs / 16, inputs / 4, 16, 4)."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % _WORD)))
    found = strips(padded)
    count, inputs, lanes = found.shape
    return np.ascontiguousarray(found.reshape(count, inputs // _WORD, _WORD, lanes).swapaxes(2, 3))


def _padded(values: NDArray[Any]) -> NDArray[np.float32]:
    found = np.zeros(-(-len(values) // STRIP) * STRIP, np.float32)
    found[: len(values)] = values
    return found


class Blob:
    """The weights, in one block."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, array: NDArray[Any]) -> int:
        """Appends an array; returns its place in floats."""
        data = array.tobytes()
        data += bytes(-len(data) % _LINE)
        at = self.size // _FLOAT
        self._parts.append(data)
        self.size += len(data)
        return at

    def content(self) -> bytes:
        """Returns the block, with the room that reads may go beyond its end."""
        return b"".join([*self._parts, bytes(_LINE)])


def pack(step: Step, blob: Blob) -> tuple[int, int]:
    """Appends weights and bias of a step; returns their places."""
    if step.integers is not None:
        return _pack_integers(step, step.integers, blob)
    if step.weights is None:
        if step.kind != "PIXELS":
            return 0, 0
        ones = np.ones(step.writes.channels, np.float32)
        return blob.add(_padded(ones)), blob.add(_padded(0 * ones))
    flat, bias = step.weights[:, :, 0, 0], step.bias
    if bias is None:
        return blob.add(strips(flat)), 0
    if step.kind in ("AFFINE", "PIXELS"):
        return blob.add(_padded(flat[:, 0])), blob.add(_padded(bias))
    if step.kind == "DEPTHWISE":
        return blob.add(step.weights[:, 0].reshape(len(bias), -1).T), blob.add(_padded(bias))
    if step.kind in ("DENSE", "STEM"):
        order = (0, 1, 2, 3) if step.kind == "STEM" else (0, 2, 3, 1)
        groups = step.weights.transpose(order).reshape(step.groups, len(bias) // step.groups, -1)
        biases = [_padded(one) for one in bias.reshape(step.groups, -1)]
        return blob.add(np.concatenate([strips(one) for one in groups])), blob.add(np.concatenate(biases))
    if step.codes is not None:
        codes, scales = step.codes
        return blob.add(_words(codes)), blob.add(np.concatenate([_padded(bias), _padded(scales)]))
    return blob.add(strips(flat)), blob.add(_padded(bias))


def _pack_integers(step: Step, found: Integers, blob: Blob) -> tuple[int, int]:
    """Appends a layer of integers: weights in words; bias, sums of weights and factors behind each other."""
    grid, factor = step.writes.grid, found.factor
    if grid is not None and step.activation.kind in ("NONE", "RELU"):
        factor = factor / grid.scale
    if step.kind == "DEPTHWISE":  # floats that hold integers
        weights = found.codes.reshape(len(found.codes), -1).T.astype(np.float32)
        return blob.add(weights), blob.add(np.concatenate([_padded(found.bias), _padded(factor)]))
    groups, count = step.groups, len(found.codes) // step.groups
    codes = found.codes[:, :, None, None] if found.codes.ndim == 2 else found.codes
    flat = codes.transpose(0, 2, 3, 1).reshape(groups, count, -1)

    def spread(values: NDArray[Any], kind: type[np.generic]) -> NDArray[np.int32]:
        found = np.zeros((groups, -(-count // STRIP) * STRIP), kind)
        found[:, :count] = values.reshape(groups, count)
        return found.ravel().view(np.int32)

    shifted = (found.bias - found.grid.zero * found.sums).clip(-(2**31) + 1, 2**31 - 1)
    after = [spread(shifted, np.int32), spread(found.sums, np.int32), spread(factor, np.float32)]
    return blob.add(np.concatenate([_words(one) for one in flat])), blob.add(np.concatenate(after))


class Source:
    """The tables of a plan, and the weights that they point into.

    Args:
        plan: The plan.
        inputs: Maps that the caller gives.
        outputs: Maps that the caller gets.

    Attributes:
        model: `model.c`.
        weights: `weights.bin`.
        identity: SHA-256 of both, which the library tells.
    """

    def __init__(self, plan: Plan, inputs: Sequence[Map], outputs: Sequence[Map]) -> None:
        self._plan, self._blob = plan, Blob()
        pixels = {step.reads[0] for group in plan.groups for step in group.steps if step.kind == "PIXELS"}
        self._sizes = (
            ", ".join(str(one.pixels * one.channels * (1 if one in pixels else _FLOAT)) for one in inputs),
            ", ".join(str(one.pixels * one.channels) for one in outputs),
        )
        self._outside = {one: ("INPUT", place) for place, one in enumerate(inputs)}
        self._outside |= {one: ("OUTPUT", place) for place, one in enumerate(outputs)}
        tables = self._tables()
        self.weights = self._blob.content()
        self.identity = hashlib.sha256(tables.encode() + self.weights).hexdigest()
        self.model = tables.replace(_IDENTITY, self.identity)

    def _tables(self) -> str:
        steps, groups, first = [], [], 0
        for group in self._plan.groups:
            found, sinks = relations(group)
            for place, step in enumerate(group.steps):
                line = self._step(step, *found[place], sink=place in sinks)
                steps.append(f"    /* {step.name.replace('*/', '* /')} */\n    {{{line}}},")
            groups.append(f"    {{{first}, {len(group.steps)}, {group.band}, {int(group.whole)}}},")
            first += len(group.steps)
        template = resources.files("ghostdeploy.exporters.native").joinpath("kernels", "model.c.txt").read_text("utf-8")
        return (
            template.replace("@STEPS@", "\n".join(steps))
            .replace("@GROUPS@", "\n".join(groups))
            .replace("@COUNT@", str(len(groups)))
            .replace("@ZEROS@", str(self._plan.zeros))
            .replace("@INPUT_BYTES@", self._sizes[0])
            .replace("@OUTPUT_FLOATS@", self._sizes[1])
            .replace("@ARENA@", str(self._plan.arena))
        )

    def _step(self, step: Step, first: list[int], second: list[int], *, sink: bool) -> str:
        weights, bias = pack(step, self._blob)
        if step.scaled_by is not None:
            weights = self._plan.places[step.scaled_by.root]
        other = step.added if step.added is not None else step.reads[1] if len(step.reads) > 1 else None
        act = step.activation
        masks = [f"{sum(1 << place for place in makers):#x}u" for makers in (first, second)]
        fields = [
            f"GHOST_{step.kind}",
            f"{{GHOST_{act.kind}, {act.low!r}f, {act.high!r}f}}",
            _window(step.window),
            *(self._place(one) for one in (step.reads[0], other, step.writes, step.second)),
            step.groups,
            *masks,
            weights,
            bias,
            self._plan.scratch.get(step, 0),
            int(step.codes is not None or step.integers is not None),
            *(int(flag) for flag in (step.scaled_by is not None, sink, step.touches_bytes)),
        ]
        return ", ".join(map(str, fields))

    def _place(self, one: Map | None) -> str:
        if one is None:
            return "{0}"
        where, index = self._outside.get(one.root, ("RING" if one.root in self._plan.rings else "ARENA", 0))
        at = one.first_channel * _FLOAT // one.per_float + self._plan.places.get(one.root, 0) * _FLOAT
        zero, scale = (0, 0.0) if one.grid is None else (one.grid.zero, one.grid.scale)
        rows = self._plan.rows.get(one.root, one.height)
        sizes = f"{one.height}, {one.width}, {rows}, {one.channels}, {one.root.channels}"
        return f"{{{at}, {sizes}, GHOST_{where}, {index}, {zero}, {scale!r}f}}"


def _window(w: Window) -> str:
    return f"{{{w.height}, {w.width}, {w.stride_y}, {w.stride_x}, {w.top}, {w.left}, {w.dilation_y}, {w.dilation_x}}}"

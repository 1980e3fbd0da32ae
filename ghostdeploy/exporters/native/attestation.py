"""What was compiled, read back from the libraries: each step's own numbers, against the plan.

The library for this processor is loaded and asked for its table, step by step; kinds, precisions, sizes, places and
multiply-accumulates that it tells must be those of `plan.json`, and what is reported is what it told:

    MACs = output pixels · output channels · input channels / groups · kernel height · kernel width

Every library holds SHA-256 of the tables and the weights from which it was made, which must be that of the files
beside it. A library for another processor cannot be loaded here, and is searched for it.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy.convert.attestation import Layer, achieved
from ghostdeploy.convert.base import RefusedError, count_phrase
from ghostdeploy.exporters.native.described import LAYERS
from ghostdeploy.exporters.native.source import identity_of
from ghostdeploy.machine import architecture, cpu_flags
from ghostdeploy.runtimes.native.library import Library
from ghostdeploy.runtimes.native.program import WEIGHTS, chosen

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.manifest import PrecisionAchieved
    from ghostdeploy.runtimes.native.program import PlannedStep, Program


class Told(NamedTuple):
    """What a library's table has of a step, in the order of `ghost_told`."""

    kind: int
    group: int
    int8: int
    in_height: int
    in_width: int
    in_channels: int
    height: int
    width: int
    channels: int
    rows: int
    stride: int
    where: int
    at: int
    kernel_height: int
    kernel_width: int
    groups: int
    weights: int
    bias: int
    data_bits: int


def read_back(folder: Path, program: Program) -> PrecisionAchieved:
    """Compares libraries with the plan and the files beside them; the one for this processor runs, on zeros.

    Args:
        folder: Holds what was written.
        program: What `plan.json` holds.

    Raises:
        RefusedError: One is of other tables or weights, does not load, or has other layers.
    """
    weights = (folder / WEIGHTS).read_bytes()
    identity = identity_of((folder / "source" / "model.c").read_text("utf-8"), weights)
    for name in program.libraries.values():
        if identity != program.identity or identity.encode() not in (folder / name).read_bytes():
            raise RefusedError(f"{name} was compiled from other tables or weights than those beside it")
    level = chosen(program.libraries, architecture(), cpu_flags())
    if level is None:
        found = [_layer(step, whole=_is_whole(program)) for step in program.steps if step.bits]
        return achieved(found, how=f"plan.json holds {_kinds(found)}; no library for this processor was asked for")
    try:
        data = (folder / program.libraries[level]).read_bytes()
        library = Library(data, np.frombuffer(weights, np.uint8), program.identity)
    except (OSError, ValueError) as error:
        raise RefusedError(f"the compiled library does not load: {error}") from error
    try:
        found = compared(library, program)
        inputs: list[Any] = [np.zeros(port.shape, port.dtype) for port in program.inputs]
        library.run(inputs, [np.empty(port.shape, np.float32) for port in program.outputs])
    finally:
        library.close()
    return achieved(found, how=f"the compiled library holds {_kinds(found)}")


def compared(library: Library, program: Program) -> list[Layer]:
    """Returns the layers that a library tells of.

    Raises:
        RefusedError: They are not those of the plan.
    """
    told, kinds = table(library), _kinds_of_table()
    if len(told) != len(program.steps) or library.arena_bytes != program.arena_bytes:
        raise RefusedError(
            f"the compiled library has {len(told)} steps and an arena of {library.arena_bytes} bytes, its plan "
            f"{len(program.steps)} and {program.arena_bytes}"
        )
    layers, strides = [], {one.name: one.stride for one in program.maps}
    for step, own in zip(program.steps, told, strict=True):
        kind = kinds[own.kind] if own.kind < len(kinds) else "?"
        layer = kind.upper() in LAYERS
        macs = _macs(own) if layer else 0
        place = own.at if own.where <= 1 else None
        bits = (8 if own.int8 else 32) * layer, own.data_bits
        found = (kind, own.group, *bits, own[6:9], own.rows, own.stride, place, macs)
        planned = (
            step.kind, step.group, step.bits, step.data_bits, step.output, step.rows, strides[step.writes], step.arena,
            step.macs,
        )  # fmt: skip
        if found != planned:
            raise RefusedError(f"the compiled library has {step.name} as {found}, its plan has {planned}")
        if layer:
            layers.append(_layer(step, whole=_is_whole(program)))  # what it told is what the plan has
    return layers


def table(library: Library) -> list[Told]:
    """Returns what a library's table has of its steps."""
    functions = library.functions
    numbers = (ctypes.c_uint * len(Told._fields))()
    found = []
    for place in range(functions.ghost_step_count()):
        functions.ghost_step_read(place, numbers)
        found.append(Told(*numbers))
    return found


def _macs(own: Told) -> int:
    inputs = own.in_channels // own.groups * own.kernel_height * own.kernel_width
    return own.height * own.width * own.channels * inputs


def _kinds_of_table() -> list[str]:
    """Returns the kinds of steps in the order of their numbers, from the header that was compiled."""
    header = resources.files("ghostdeploy.exporters.native").joinpath("kernels", "ghost_steps.h").read_text("utf-8")
    body = header.partition("enum {")[2].partition("};")[0]
    return [name.lower() for name in re.findall(r"^\s*GHOST_(\w+),", body, re.MULTILINE)]


def _is_whole(program: Program) -> bool:
    """Returns whether maps are bytes: of such a network those layers count as INT8 that multiply bytes."""
    return any(step.data_bits == 8 for step in program.steps)


def _layer(step: PlannedStep, *, whole: bool) -> Layer:
    """Returns a layer; those of one pixel are linear, whose multiplications no share of convolutions counts."""
    kind = "float32" if step.bits != 8 else "int8 x uint8" if step.data_bits == 8 else "int8"
    int8 = step.bits == 8 and (step.data_bits == 8 or not whole)
    return Layer(
        name=step.name, executed=f"{step.kind} {kind}", int8=int8, macs=0 if step.kind == "vector" else step.macs
    )


def _kinds(layers: list[Layer]) -> str:
    return count_phrase(Counter(layer.executed for layer in layers))

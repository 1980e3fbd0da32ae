"""What `plan.json` holds: maps with the ONNX tensors that they stand for, and steps with what they read and make.

A map that an epilogue ends has the names of all that it was, the last of which it holds: convolution, sum, activation.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ghostdeploy.exporters.native.plan import MOST_THREADS
from ghostdeploy.runtimes.native.program import PlannedMap, PlannedStep, Port, Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ghostdeploy.bundle.manifest import TensorSpec
    from ghostdeploy.convert.base import Ports
    from ghostdeploy.exporters.native.plan import Plan
    from ghostdeploy.exporters.native.source import Source
    from ghostdeploy.exporters.native.steps import Map, Step

LAYERS = ("STEM", "POINTWISE", "DEPTHWISE", "DENSE", "VECTOR")
"""Kinds of steps that are layers with weights."""
FLOAT = 4
"""Bytes."""


class Names:
    """A name of its own for each map; the caller's have those of the ports."""

    def __init__(self) -> None:
        self._of: dict[Map, str] = {}
        self._taken: set[str] = set()

    def of(self, one: Map, name: str | None = None) -> str:
        """Returns the name of a map.

        Args:
            one: The map.
            name: What it is called where it has no name yet.
        """
        if one not in self._of:
            wanted = name or one.name
            while wanted in self._taken:
                wanted += "'"
            self._taken.add(wanted)
            self._of[one] = wanted
        return self._of[one]

    def maps(self) -> list[Map]:
        """Returns the maps in the order in which they were named."""
        return list(self._of)


def describe(
    plan: Plan,
    ports: Ports,
    outside: tuple[Sequence[Map], Sequence[Map]],
    values: Mapping[str, Map],
    libraries: dict[str, str],
    source: Source,
) -> Program:
    """Returns what `plan.json` holds.

    Args:
        plan: The plan.
        ports: Inputs and outputs, as the caller sees them.
        outside: Their maps.
        values: The map of each ONNX tensor.
        libraries: File of each instruction set.
        source: What was written.
    """
    names = Names()
    for specs, given in zip((ports.inputs, ports.outputs), outside, strict=True):
        for spec, one in zip(specs, given, strict=True):
            names.of(one, spec.name)
    steps = tuple(_planned(step, place, plan, names) for place, group in enumerate(plan.groups) for step in group.steps)
    held: dict[Map, list[str]] = defaultdict(list)
    for name, one in values.items():
        held[one].append(name)
    for one in names.maps():
        names.of(one.root)
    return Program(
        inputs=tuple(map(_port, ports.inputs)),
        outputs=tuple(map(_port, ports.outputs)),
        arena_bytes=plan.arena * FLOAT,
        weights_bytes=len(source.weights),
        most_threads=MOST_THREADS,
        identity=source.identity,
        libraries=libraries,
        maps=tuple(_map(one, names, held[one]) for one in names.maps()),
        steps=steps,
    )


def _port(spec: TensorSpec) -> Port:
    return Port(name=spec.name, dtype=spec.dtype, shape=tuple(size or 0 for size in spec.shape[1:]))


def _map(one: Map, names: Names, values: Sequence[str]) -> PlannedMap:
    return PlannedMap(
        name=names.of(one),
        values=tuple(values),
        shape=(one.height, one.width, one.channels),
        root=names.of(one.root),
        channel=one.first_channel,
        stride=one.root.channels,
        scale=0.0 if one.grid is None else one.grid.scale,
        zero=0 if one.grid is None else one.grid.zero,
    )


def _planned(step: Step, group: int, plan: Plan, names: Names) -> PlannedStep:
    out, root = step.writes, step.writes.root
    layer = step.kind in LAYERS and step.weights is not None
    bits = 0 if not layer else 32 if step.codes is None and step.integers is None else 8
    sizes = [one.pixels * one.channels * FLOAT // one.per_float for one in (step.reads[0], out)]
    place = plan.places.get(root)
    return PlannedStep(
        name=step.name,
        kind=step.kind.lower(),
        reads=tuple(map(names.of, step.reads)),
        added=None if step.added is None else names.of(step.added),
        scaled_by=None if step.scaled_by is None else names.of(step.scaled_by),
        writes=names.of(out),
        second=None if step.second is None else names.of(step.second),
        group=group,
        output=(out.height, out.width, out.channels),
        rows=plan.rows.get(root, out.height),
        arena=None if place is None else FLOAT * place + out.first_channel * FLOAT // out.per_float,
        macs=step.macs if layer else 0,
        weight_bytes=0 if step.weights is None else step.weights.size * (bits or 32) // 8,
        activation_bytes=sum(sizes),
        bits=bits,
        data_bits=32 if step.reads[0].grid is None else 8,
    )

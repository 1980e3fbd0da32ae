"""Looking inside a compiled network: the shipped library runs any of its steps alone, over whole maps.

`ghost_step_alone` gives a step of the library's own table other places and nothing else, so its numbers are, to the
last bit, those that `ghost_run` makes in rings of rows; that is checked whenever a network runs from its inputs. What
the plan fuses stands apart here, so that a tensor can be put in its place:

    (W · diag(s)) x        z = x · s is a tensor. Where it is given, the step runs on it with gates of 1
    p, p + y               two tensors of one step. Where p is given, the second is p + y
    parts of a map         tensors; joined for who reads them all, and cut for who reads some channels
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.arrays import aligned
from ghostdeploy.runtimes.native import program
from ghostdeploy.runtimes.native.library import Library
from ghostdeploy.runtimes.native.runtime import level_of
from ghostdeploy.runtimes.probe import Probe, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.runtimes.native.program import PlannedMap, PlannedStep, Program
    from ghostdeploy.runtimes.probe import Floats

    Tensor = NDArray[Any]

_SLACK = 64
"""Bytes that kernels may read beyond the end of a map."""
_SCALES = "scale_weights"


@dataclass(frozen=True, slots=True)
class _Held:
    """Tensors of one image: (height, width, channels), those of the caller as the caller has them."""

    tensors: dict[str, Tensor]
    given: frozenset[str]
    """Those that are in the place of what the network would compute."""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


class Alone:
    """Runs steps of a library one at a time.

    Args:
        plan: Of the library.
        library: The compiled one.
        weights: `weights.bin`, read in place.
    """

    def __init__(self, plan: Program, library: Library, weights: NDArray[np.uint8]) -> None:
        self._plan, self._maps = plan, {one.name: one for one in plan.maps}
        self._weights, self._arena = weights, aligned(plan.arena_bytes)
        self._call = library.functions.ghost_step_alone
        self._call.argtypes, self._call.restype = [ctypes.c_int, *[ctypes.c_void_p] * 4], ctypes.c_int

    def run(self, place: int, data: Tensor, other: Tensor | None = None, gates: Tensor | None = None) -> Tensor:
        """Returns what a step makes: of two maps the second, where it gets what is added.

        Args:
            place: Of the step in the plan.
            data: What it reads.
            other: Its second operand, or what it adds.
            gates: What its weights are multiplied with.
        """
        step = self._plan.steps[place]
        scaled = None
        if gates is not None:
            scaling = next(at for at, one in enumerate(self._plan.steps) if one.writes == step.scaled_by)
            scaled = self.run(scaling, gates)
        made = [_room(self._maps[step.writes])]
        if step.second is not None and other is not None:
            made.append(_room(self._maps[step.second]))
        maps = [_copied(data), None if other is None else _copied(other), *made, None][:4]
        pointers = (ctypes.c_void_p * 4)(*(None if one is None else one.ctypes.data for one in maps))
        weights, arena = self._weights.ctypes.data, self._arena.ctypes.data
        if failed := self._call(place, weights, None if scaled is None else scaled.ctypes.data, arena, pointers):
            raise RuntimeError(f"step {step.name} of the library returned {failed}")
        return made[-1]


class NativeProbe(Probe):
    """One network.

    Args:
        plan: What its bundle says of it.
        library: The compiled one.
        weights: `weights.bin`, read in place.
        level: The instruction set of the library.
    """

    engine = "native"

    def __init__(self, plan: Program, library: Library, weights: NDArray[np.uint8], level: str) -> None:
        self.engine = f"native {program.SCHEMA} {level}"  # type: ignore[misc]
        self._plan, self._library, self._alone = plan, library, Alone(plan, library, weights)
        self._maps = {one.name: one for one in plan.maps}
        self._inputs, self._outputs = ({one.name: one for one in ports} for ports in (plan.inputs, plan.outputs))
        self._made: list[tuple[Step, Callable[[_Held], Tensor]]] = []
        self._names = set(self._inputs)
        self._gates = {one.writes: one.reads[0] for one in plan.steps if one.kind == _SCALES}
        for place, step in enumerate(plan.steps):
            if step.kind != _SCALES:
                self._add(place, step)
        super().__init__([step for step, _ in self._made], list(self._inputs), {name: name for name in self._outputs})

    def _append(self, step: Step, compute: Callable[[_Held], Tensor]) -> None:
        self._made.append((step, compute))
        self._names.update(step.writes)

    def _add(self, place: int, step: PlannedStep) -> None:
        """Appends what makes the tensors of a step."""
        data, *others = step.reads[:1] if step.kind == "mean" else step.reads  # a mean has the second for its size
        gate = None if step.scaled_by is None else self._gates[step.scaled_by]
        added, second = step.added, step.second
        for name in filter(None, (data, *others, added, gate)):
            self._find(name)
        read = data if gate is None else self._gated(data, gate)
        other = others[0] if others else added if second is None else None

        def run(held: _Held, other: str | None = other) -> Tensor:
            operand = None if other is None else held[other]
            if gate is None or read in held.given:
                gates = None if gate is None else np.ones(self._maps[gate].shape, np.float32)
                return self._alone.run(place, held[read], operand, gates)
            return self._alone.run(place, held[data], operand, held[gate])

        reads = tuple(dict.fromkeys(filter(None, (read, other))))
        self._append(Step(name=step.name, reads=reads, writes=(step.writes,), layer=step.bits > 0), run)
        if second is not None and added is not None:

            def run_second(held: _Held) -> Tensor:
                own = held[step.writes]
                return own + held[added] if step.writes in held.given else run(held, added)

            self._append(Step(name=second, reads=(step.writes, added), writes=(second,)), run_second)

    def _gated(self, data: str, gate: str) -> str:
        """Appends x · s, and returns its name."""
        name = f"{data} · {gate}"
        if name not in self._names:
            self._maps[name] = self._maps[data]
            self._append(Step(name=name, reads=(data, gate), writes=(name,)), lambda held: held[data] * held[gate])
        return name

    def _find(self, name: str) -> None:
        """Appends what joins or cuts a map that no step makes as it is."""
        if name in self._names:
            return
        own = self._maps[name]
        first, last = own.channel, own.channel + own.shape[2]
        written = (name for step in self._plan.steps for name in (step.writes, step.second) if name in self._names)
        parts = [self._maps[one] for one in (*self._inputs, *written) if one and self._maps[one].root == own.root]
        cuts = [(one, max(first, one.channel), min(last, one.channel + one.shape[2])) for one in parts]
        used = sorted(((low, one, high) for one, low, high in cuts if low < high), key=lambda cut: cut[0])

        def joined(held: _Held) -> Tensor:
            pieces = [
                _pixels(held[one.name], one)[..., low - one.channel : high - one.channel] for low, one, high in used
            ]
            return np.concatenate(pieces, axis=-1)

        self._append(Step(name=name, reads=tuple(one.name for _, one, _ in used), writes=(name,)), joined)

    def run(self, given: Floats, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Probe.run`.

        Raises:
            RuntimeError: The steps, one by one, give other outputs than the network as it ships.
        """
        needed = {one for name in wanted for one in self.between(given, name).steps}
        images = [
            self._image({name: self._stored(name, array[place]) for name, array in given.items()}, needed)
            for place in range(len(next(iter(given.values()))))
        ]
        found = {name: np.stack([self._shown(name, one[name]) for one in images]) for name in wanted}
        if given.keys() == self._inputs.keys():
            self._require_same(given, found)
        return found

    def _image(self, given: dict[str, Tensor], needed: set[Step]) -> dict[str, Tensor]:
        held, found = _Held(dict(given), frozenset(given)), {}
        for step, compute in self._made:
            if step in needed:
                (name,) = step.writes
                found[name] = compute(held)
                held.tensors.setdefault(name, found[name])
        return found

    def _require_same(self, given: Floats, found: dict[str, NDArray[np.float32]]) -> None:
        whole = [np.empty((len(next(iter(given.values()))), *one.shape), np.float32) for one in self._outputs.values()]
        inputs = [np.ascontiguousarray(given[name]) for name in self._inputs]
        for place in range(len(inputs[0])):
            self._library.run([one[place] for one in inputs], [one[place] for one in whole])
        for name, own in zip(self._outputs, whole, strict=True):
            if name in found and not np.array_equal(found[name], own, equal_nan=True):
                raise RuntimeError(f"its steps, one by one, give another {name} than the network as it ships")

    def _stored(self, name: str, array: Tensor) -> Tensor:
        """Returns a tensor of one image as the kernels have it."""
        if name in self._inputs:
            return array
        own = self._maps[name]
        stored = np.moveaxis(np.asarray(array, np.float32), 0, -1).reshape(own.shape)
        if not own.scale:
            return stored
        codes: Tensor = (np.rint(stored / np.float32(own.scale)) + own.zero).clip(0, 255).astype(np.uint8)
        return codes

    def _shown(self, name: str, array: Tensor) -> Tensor:
        """Returns a tensor of one image with its channels first; outputs as the caller gets them."""
        if name in self._outputs:
            return array.reshape(self._outputs[name].shape)
        own, shown = self._maps[name], np.moveaxis(array, -1, 0)
        return (shown.astype(np.float32) - own.zero) * np.float32(own.scale) if own.scale else shown


def _pixels(array: Tensor, own: PlannedMap) -> Tensor:
    return array.reshape(own.shape)


def _room(own: PlannedMap) -> Tensor:
    """Returns memory for a map, with what kernels may read behind it."""
    kind = np.dtype(np.uint8 if own.scale else np.float32)
    size = int(np.prod(own.shape)) * kind.itemsize
    return aligned(size + _SLACK)[:size].view(kind).reshape(own.shape)


def _copied(array: Tensor) -> Tensor:
    room = aligned(array.nbytes + _SLACK)
    room[:] = 0
    own: Tensor = room[: array.nbytes].view(array.dtype).reshape(array.shape)
    own[...] = array
    return own


def open_probe(bundle: Bundle) -> NativeProbe:
    """Opens the payload of a bundle.

    Raises:
        UnsupportedHardware: It has no library for this processor.
    """
    plan = program.read(bundle.read(bundle.manifest.payload))
    level, weights = level_of(plan.libraries, str(bundle.path)), bundle.read_aligned(program.WEIGHTS)
    library = Library(bundle.read(plan.libraries[level]), weights, plan.identity)
    return NativeProbe(plan, library, weights, level)

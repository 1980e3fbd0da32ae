"""Looking inside a payload: its steps, and any tensor of it, computed by the engine from any others.

A payload is a list of steps. A *cut* gives the engine some tensors in place of what would compute them, and asks for
others: only the steps between run, with the engine's own kernels. From the inputs to a tensor, that is what arrives
there; from the tensors around a block, it is the block alone. Each engine has its own means:

engine            a tensor inside is asked for by            and given by
ONNX Runtime      an output of the graph                     an input of the graph, the rest cut off
OpenVINO          a result of the model                      a parameter
LiteRT            an output of the file                      an input of the file, the rest cut off
ncnn              `Extractor.extract`                        `Extractor.input`

The engine gets the file's own weights and steps; that it may fuse less where a tensor is asked for is the price. What
is stored in integers goes through its scale both ways, so callers see floats, with channels second.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = Mapping[str, NDArray[np.float32]]

_CALL = re.compile(r"#\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operator of a payload."""

    name: str
    reads: tuple[str, ...]
    """Tensors that change with the input; of a layer, what its weights are multiplied with comes first."""
    writes: tuple[str, ...]
    layer: bool = False
    """Whether it has weights of its own; its name is then that of its PyTorch module."""

    @property
    def module(self) -> str:
        """The PyTorch module: a second call of one is numbered, `blocks.3.0.conv#2`."""
        return _CALL.sub("", self.name)


class Between(NamedTuple):
    """What lies between some tensors and one that is computed from them."""

    sources: tuple[str, ...]
    """Tensors that are given, those that are needed."""
    steps: tuple[Step, ...]
    """In the order of the payload."""


class Probe(ABC):
    """A payload, opened to be looked into.

    Args:
        steps: In an order in which they can run.
        inputs: Names of the payload's inputs.
        outputs: Tensors by the names of the manifest's outputs.
    """

    engine: ClassVar[str]
    """What computes, with its version."""

    def __init__(self, steps: Sequence[Step], inputs: Sequence[str], outputs: Mapping[str, str]) -> None:
        self.steps, self.inputs, self.outputs = tuple(steps), tuple(inputs), dict(outputs)
        self._step_of = {name: place for place, step in enumerate(self.steps) for name in step.writes}

    @abstractmethod
    def run(self, given: Floats, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Computes tensors from others.

        Args:
            given: (N, …) by name, channels second; inputs of the payload as its manifest has them. They cut `wanted`
                off from the inputs.
            wanted: Names, each written by a step. One that is given as well is computed all the same: its readers
                get what was given. So one run computes every block of a payload alone.

        Returns:
            The tensors, (N, …), channels second.

        Raises:
            RuntimeError: The engine refuses; likewise whatever else it raises.
        """

    @property
    def layers(self) -> list[Step]:
        """The steps with weights."""
        return [step for step in self.steps if step.layer]

    def place(self, tensor: str) -> int:
        """Returns the place of the step that writes a tensor, −1 for an input."""
        return self._step_of.get(tensor, -1)

    def between(self, cuts: Collection[str], wanted: str) -> Between:
        """Returns what computes a tensor from the nearest of `cuts`, which it is not looked for beyond."""
        found, sources, open_ends = set[int](), dict[str, None](), [wanted]
        while open_ends:
            name = open_ends.pop()
            if name not in self._step_of or (name in cuts and name != wanted):
                sources[name] = None
                continue
            place = self._step_of[name]
            if place not in found:
                found.add(place)
                open_ends += self.steps[place].reads
        return Between(tuple(sources), tuple(self.steps[place] for place in sorted(found)))


def channels_second(array: NDArray[Any], *, nhwc: bool) -> NDArray[np.float32]:
    """Returns a tensor as PyTorch has it, in float32.

    Args:
        array: (N, …).
        nhwc: Whether maps of four dimensions have their channels last.
    """
    ordered = np.moveaxis(array, -1, 1) if nhwc and array.ndim == 4 else array
    return np.ascontiguousarray(ordered, np.float32)


def channels_last(array: NDArray[Any], *, nhwc: bool) -> NDArray[Any]:
    """Undoes `channels_second`."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1) if nhwc and array.ndim == 4 else array)


def in_pieces(given: Mapping[str, NDArray[Any]], batch: int | None) -> Iterable[dict[str, NDArray[Any]]]:
    """Yields arrays cut to the batch that a payload is built for; the last one is filled up with copies."""
    count = len(next(iter(given.values())))
    size = batch or count
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield {name: array[rows] for name, array in given.items()}

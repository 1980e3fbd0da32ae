"""The words of a plan: maps, and the steps that make them.

A map lies in memory as rows of pixels, a pixel as its channels. What ONNX concatenates is one map whose parts are
written at their own channels; what it slices is read there: neither is a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that bytes stand for: scale · (byte − zero)."""

    scale: float
    zero: int


@dataclass(eq=False, slots=True)
class Map:
    """One tensor of one image; a vector is a map of one pixel."""

    name: str
    height: int
    width: int
    channels: int
    home: Map | None = None
    """The map that it is some channels of."""
    offset: int = 0
    """Its first channel there."""
    rounded: Grid | None = None
    """Of a root: set where its values are stored as bytes."""

    @property
    def grid(self) -> Grid | None:
        """What its bytes stand for; None where values are floats."""
        return self.root.rounded

    @property
    def per_float(self) -> int:
        """Values in four bytes."""
        return 1 if self.grid is None else 4

    @property
    def root(self) -> Map:
        """The map that has memory of its own."""
        return self if self.home is None else self.home.root

    @property
    def first_channel(self) -> int:
        """Its first channel in the root."""
        return 0 if self.home is None else self.offset + self.home.first_channel

    @property
    def pixels(self) -> int:
        """Pixels of the map."""
        return self.height * self.width

    @property
    def is_vector(self) -> bool:
        """Whether it has one pixel."""
        return self.pixels == 1


@dataclass(frozen=True, slots=True)
class Window:
    """What a convolution or a pool reads around an output."""

    height: int = 1
    width: int = 1
    stride_y: int = 1
    stride_x: int = 1
    top: int = 0
    left: int = 0
    dilation_y: int = 1
    dilation_x: int = 1

    @property
    def reach(self) -> int:
        """Rows from the first to the last that one output reads."""
        return (self.height - 1) * self.dilation_y + 1

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Returns the rows that outputs [first, last) read; they may lie outside the map."""
        begin = first * self.stride_y - self.top
        return begin, (last - 1) * self.stride_y - self.top + self.reach


@dataclass(frozen=True, slots=True)
class Activation:
    """What an epilogue does, see `kernels/ghost_activation.h`."""

    kind: str = "NONE"
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class Integers:
    """Weights of a layer that reads bytes, and what its sums mean, see `rounding`."""

    codes: Weights
    """(outputs, inputs / groups, …), int8."""
    bias: Weights
    """In steps of the sums."""
    sums: Weights
    """Of the weights of each output."""
    factor: Weights
    """What 1 of the sum of an output is."""
    grid: Grid
    """Of what it reads."""


STRIP = 16
"""Output channels of a strip of weights, see `kernels/ghost_kernels.h`."""
NOTHING = Activation()


@dataclass(eq=False, slots=True, kw_only=True)
class Step:
    """One kernel over one map."""

    kind: str
    name: str
    """The PyTorch module, or the node."""
    reads: list[Map]
    writes: Map
    window: Window = field(default_factory=Window)
    activation: Activation = field(default_factory=Activation)
    added: Map | None = None
    """Summed in the epilogue."""
    second: Map | None = None
    """Gets the sum with what is added, while `writes` gets it without."""
    weights: Weights | None = None
    """(outputs, inputs / groups, height, width)."""
    bias: Weights | None = None
    codes: tuple[Weights, Weights] | None = None
    """Weights as integers (outputs, inputs), and the scale of each output."""
    integers: Integers | None = None
    """Set where it multiplies bytes."""
    groups: int = 1
    scaled_by: Map | None = None
    """The vector that its weights are multiplied with before it runs: a gate on what it reads."""

    @property
    def all_reads(self) -> list[Map]:
        """Everything that it reads."""
        return [*self.reads, *(one for one in (self.added, self.scaled_by) if one is not None)]

    @property
    def all_writes(self) -> list[Map]:
        """Everything that it makes."""
        return [self.writes] if self.second is None else [self.writes, self.second]

    @property
    def touches_bytes(self) -> bool:
        """Whether a map that it reads or writes is stored as bytes."""
        return any(one.grid is not None for one in (*self.all_reads, *self.all_writes))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        if self.weights is None:
            return 0
        return self.writes.pixels * int(self.weights.size)

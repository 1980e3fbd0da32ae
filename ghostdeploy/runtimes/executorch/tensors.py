"""Tensors of ExecuTorch: types by PyTorch's numbers, and what a binding to the engine gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}
"""NumPy's names of PyTorch's scalar types."""

Described = tuple[str, tuple[int, ...]]
"""Type and shape of a tensor."""


class Method(Protocol):
    """A loaded method; freed with its last reference."""

    inputs: list[Described]
    outputs: list[Described]

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Returns copies of the outputs; `arrays` are contiguous, as declared, in the method's order."""


class Binding(Protocol):
    """A way from Python to ExecuTorch."""

    def thread_count(self) -> int:
        """Returns the threads of the process's pool."""

    def reset_threads(self, count: int) -> None:
        """Makes a new pool; no method is open."""

    def load(self, data: bytes, name: str) -> Method:
        """Loads a method of a program.

        Raises:
            RuntimeError: ExecuTorch does not load it.
        """


def type_name(number: int) -> str:
    """Returns the name of a scalar type."""
    return TYPES.get(number, f"type {number}")

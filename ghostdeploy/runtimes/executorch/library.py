"""ExecuTorch by its C++ libraries, without torch.

The Python extension of ExecuTorch's wheel links to torch; the libraries beside it, which are there for C++ programs, do
not. The program comes to them as a file in memory, by its number: `/proc/self/fd/…`. Fields of tensors are compared
with what their constructor writes, once; releases that were not tested are left to `extension`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import weakref
from ctypes import byref, c_bool, c_int32, c_uint8, c_void_p
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.runtimes.executorch.symbols import (
    CONSISTENT,
    ERRORS,
    FILE,
    MODULE_BYTES,
    TENSOR,
    Functions,
    Tensor,
    Value,
    string,
)
from ghostdeploy.runtimes.executorch.tensors import TYPES, type_name
from ghostdeploy.telemetry import silent

with silent():
    import executorch  # a folder without code of its own

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.runtimes.executorch.tensors import Described

RELEASES = ("1.5",)
"""Whose classes are as in `symbols`."""
_MACHINES = ("x86_64", "aarch64")


class Library:
    """The libraries, as a binding.

    Args:
        folder: Where they are.

    Raises:
        ImportError: They are not there, or have other symbols or another layout than expected.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._calls = Functions(folder)
        except (OSError, AttributeError) as error:
            raise ImportError(f"ExecuTorch's libraries are not as expected: {error}") from error
        _Argument(self._calls, "float32", (2, 3)).check_layout()

    def thread_count(self) -> int:
        """Returns the threads of the process's pool."""
        return int(self._calls.thread_count(self._calls.pool()))

    def reset_threads(self, count: int) -> None:
        """Makes a new pool; no method is open."""
        self._calls.reset_pool(self._calls.pool(), count)

    def load(self, data: bytes, name: str) -> _Method:
        """Loads a method of a program.

        Raises:
            RuntimeError: ExecuTorch does not load it.
        """
        return _Method(self._calls, data, name)


class _Method:
    """A loaded method."""

    def __init__(self, calls: Functions, data: bytes, name: str) -> None:
        self._calls = calls
        descriptor = os.memfd_create("executorch", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(data)
            module = (c_void_p * (MODULE_BYTES // 8))()
            nothing = [byref(c_void_p()) for _ in range(3)]
            calls.construct(module, string(f"/proc/self/fd/{descriptor}"), FILE, *nothing, c_bool())
            freed = weakref.finalize(self, calls.destroy, module)
            freed.atexit = False
            try:
                self._method = _opened(calls, module, name)
            except RuntimeError:
                freed()
                raise
        finally:
            os.close(descriptor)
        inputs = [calls.input(self._method, place)[0] for place in range(calls.input_count(self._method))]
        self._outputs = [calls.output(self._method, place) for place in range(calls.output_count(self._method))]
        self.inputs = [_described(value) for value in inputs]
        self.outputs = [_described(value[0]) for value in self._outputs]
        self._arguments = [_Argument(calls, *described) for described in self.inputs]

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Returns copies of the outputs."""
        for place, (argument, array) in enumerate(zip(self._arguments, arrays, strict=True)):
            argument.point_to(array)
            failed = self._calls.set_input(self._method, byref(argument.value), place)
            _succeed(f"take input {place}", failed)
        _succeed("run", self._calls.execute(self._method))
        return [_copied(value[0]) for value in self._outputs]


class _Argument:
    """A tensor that ExecuTorch reads, in the memory of an array.

    Args:
        calls: Make it.
        kind: Its type.
        shape: Its shape.
    """

    def __init__(self, calls: Functions, kind: str, shape: tuple[int, ...]) -> None:
        rank, self._described = len(shape), (kind, shape)
        steps = [prod(shape[place + 1 :]) for place in range(rank)]
        self._kept = sizes, order, strides = (
            (c_int32 * rank)(*shape),
            (c_uint8 * rank)(*range(rank)),
            (c_int32 * rank)(*steps),
        )
        self.tensor = Tensor()
        calls.construct_tensor(byref(self.tensor), _number(kind), rank, sizes, None, order, strides, 0, 0, 0)
        self.value = Value(ctypes.addressof(self.tensor), TENSOR)

    def check_layout(self) -> None:
        """Compares the fields with what the constructor was told; follows no address.

        Raises:
            ImportError: They are elsewhere.
        """
        (kind, shape), tensor = self._described, self.tensor
        addresses = [ctypes.cast(one, c_void_p).value for one in (tensor.sizes, tensor.order, tensor.strides)]
        numbers = tensor.data, tensor.dimensions, tensor.elements, tensor.most, tensor.type
        told = [ctypes.addressof(one) for one in self._kept]
        if addresses != told or numbers != (None, len(shape), prod(shape), prod(shape), _number(kind)):
            raise ImportError("ExecuTorch's tensors are not as expected: their fields are elsewhere")

    def point_to(self, array: NDArray[Any]) -> None:
        """Takes the memory of an array, which must live as long as it is read.

        Raises:
            ValueError: It is not as declared.
        """
        if (str(array.dtype), array.shape) != self._described or not array.flags.c_contiguous:
            raise ValueError(f"expected a contiguous array of {self._described}, found {array.dtype} {array.shape}")
        self.tensor.data = array.ctypes.data


def open_library() -> Library | None:
    """Returns the libraries; None where these are not those of a known release, or lie elsewhere."""
    known = version("executorch").rpartition(".")[0] in RELEASES
    if not known or sys.platform != "linux" or platform.machine() not in _MACHINES:
        return None
    try:
        return Library(Path(next(iter(executorch.__path__)), "lib"))
    except ImportError:
        return None


def _opened(calls: Functions, module: Any, name: str) -> c_void_p:
    """Returns a method of a module that was made for a program."""
    _succeed("load the program", calls.load(module, CONSISTENT))
    _succeed(f"load {name}", calls.load_method(module, string(name), None, None, None, (c_void_p * 3)()))
    return c_void_p(calls.method(module, string(name)).value)


def _number(kind: str) -> int:
    """Returns the number of a type.

    Raises:
        RuntimeError: NumPy has no such type.
    """
    for number, name in TYPES.items():
        if name == kind:
            return number
    raise RuntimeError(f"ExecuTorch's method has a tensor of {kind}")


def _succeed(task: str, error: int) -> None:
    if error:
        raise RuntimeError(f"ExecuTorch cannot {task}: {ERRORS.get(error, 'error')} ({error:#x})")


def _tensor(value: Value) -> Tensor:
    if value.tag != TENSOR:
        raise RuntimeError(f"ExecuTorch's method takes and returns tensors, found a value of kind {value.tag}")
    return Tensor.from_address(value.payload)


def _described(value: Value) -> Described:
    tensor = _tensor(value)
    return type_name(tensor.type), tuple(tensor.sizes[: tensor.dimensions])


def _copied(value: Value) -> NDArray[Any]:
    kind, shape = _described(value)
    copy = np.empty(shape, kind)
    ctypes.memmove(copy.ctypes.data, _tensor(value).data, copy.nbytes)
    return copy

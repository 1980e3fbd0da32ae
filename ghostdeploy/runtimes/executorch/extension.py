"""ExecuTorch by its Python extension, which links to torch: where `library` does not know the libraries.

Its `portable_lib` would import its exporter too. Memory is read as contiguous, whatever a tensor's strides say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.runtimes.executorch.tensors import type_name
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    import torch  # before the extension, which finds torch's libraries that way

    with hushed():
        from executorch.extension.pybindings import _C

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.runtimes.executorch.tensors import Described


class Extension:
    """The extension, as a binding."""

    def thread_count(self) -> int:
        """Returns the threads of the process's pool."""
        return int(_C._threadpool_get_thread_count())

    def reset_threads(self, count: int) -> None:
        """Makes a new pool; no method is open."""
        _C._unsafe_reset_threadpool(count)

    def load(self, data: bytes, name: str) -> _Method:
        """Loads a method of a program.

        Raises:
            RuntimeError: ExecuTorch does not load it.
        """
        return _Method(data, name)


class _Method:
    """A loaded method."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data  # ExecuTorch reads the bytes in place, and holds no reference
        check = _C.Verification.InternalConsistency
        self._program = _C._load_program_from_buffer(data, program_verification=check)
        self._method = self._program.load_method(name)
        about = self._method.method_meta()
        self.inputs = [_described(about.input_tensor_meta(place)) for place in range(about.num_inputs())]
        self.outputs = [_described(about.output_tensor_meta(place)) for place in range(about.num_outputs())]

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Returns copies of the outputs."""
        return [result.numpy() for result in self._method.call([torch.from_numpy(array) for array in arrays])]

    def __del__(self) -> None:
        for name in ("_method", "_program"):  # in this order, before the bytes
            self.__dict__.pop(name, None)


def _described(about: Any) -> Described:
    return type_name(int(about.dtype())), tuple(int(size) for size in about.sizes())

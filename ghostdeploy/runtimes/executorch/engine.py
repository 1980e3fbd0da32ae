"""One method of a program in ExecuTorch: opened from bytes in memory, one call at a time.

ExecuTorch's extension links to torch, so torch is imported before it; its own `portable_lib` would import its exporter
too. XNNPACK's threads are one pool per process, of as many threads as was asked for first: a network that is open keeps
a pointer to the pool, and a new pool under it ends the process. A forked child has none of the threads, and gets a
pool of its own. Two networks take turns: two threads that called one each took as long as one that called both.

ExecuTorch reads a tensor's memory as contiguous, whatever its strides say.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.runtimes.executorch import program
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    import torch

    with hushed():
        from executorch.extension.pybindings import _C

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VERSION = version("executorch")
_log = logging.getLogger("ghostdeploy")
_TYPES = {
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
"""Of PyTorch's scalar types."""


class _ThreadPool:
    """The one pool of this process."""

    def __init__(self) -> None:
        self._forget()
        self._forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def enter(self, threads: int) -> int:
        """Returns how many threads a network has that asks for `threads`."""
        with self._lock, hushed():
            # A pool of the right size stays: the application may have networks of its own on it.
            if self._users == 0 and (self._forked or threads != _C._threadpool_get_thread_count()):
                _C._unsafe_reset_threadpool(threads)
                self._forked = False
            self._users += 1
            found = int(_C._threadpool_get_thread_count())
        if threads != found:
            text = "ExecuTorch has one thread pool per process: %d threads, not %d, while another model is open"
            _log.warning(text, found, threads)
        return found

    def leave(self) -> None:
        """Says that a network is closed."""
        with self._lock:
            self._users -= 1

    def _forget(self) -> None:
        self._lock, self._users, self._forked = threading.Lock(), 0, True


_pool = _ThreadPool()


class Network:
    """A loaded program; may be called from many threads, which wait for each other.

    Args:
        data: `model.pte`.
        threads: Threads of one run.

    Attributes:
        program: What is in it.
        threads: Threads it has.
        inputs: Type and shape of each input.
        outputs: Likewise.

    Raises:
        ValueError: It is no program, or is damaged.
        RuntimeError: ExecuTorch does not load it.
    """

    def __init__(self, data: bytes, *, threads: int) -> None:
        self.program = program.read(data)
        self._lock, self._data = threading.Lock(), data  # ExecuTorch reads the bytes in place, and holds no reference
        self.threads = _pool.enter(threads)
        try:
            with hushed():
                check = _C.Verification.InternalConsistency
                self._program = _C._load_program_from_buffer(data, program_verification=check)
                self._method = self._program.load_method(program.METHOD)
            about = self._method.method_meta()
            self.inputs = [_described(about.input_tensor_meta(place)) for place in range(about.num_inputs())]
            self.outputs = [_described(about.output_tensor_meta(place)) for place in range(about.num_outputs())]
        except BaseException:
            _pool.leave()
            raise

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs one batch.

        Args:
            arrays: As the program declares, in its order.

        Returns:
            Copies of the outputs.

        Raises:
            RuntimeError: An operator failed.
        """
        tensors = [torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in arrays]
        with self._lock:
            return [result.numpy() for result in self._method.call(tensors)]

    def close(self) -> None:
        """Frees the network."""
        with self._lock:
            del self._method, self._program, self._data
            _pool.leave()


def _described(about: Any) -> tuple[str, tuple[int, ...]]:
    kind = int(about.dtype())
    return _TYPES.get(kind, f"type {kind}"), tuple(int(size) for size in about.sizes())

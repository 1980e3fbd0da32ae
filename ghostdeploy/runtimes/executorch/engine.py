"""One method of a program in ExecuTorch: opened from bytes in memory, one call at a time.

By ExecuTorch's C++ libraries, without torch, where `library` knows them; else by its extension, which needs torch.

XNNPACK's threads are one pool per process, of as many threads as was asked for first: a network that is open keeps
a pointer to the pool, and a new pool under it ends the process. A forked child has none of the threads, and gets a
pool of its own. Two networks take turns: two threads that called one each took as long as one that called both.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import MissingDependency
from ghostdeploy.runtimes.executorch import program
from ghostdeploy.runtimes.executorch.library import RELEASES, open_library
from ghostdeploy.streams import hushed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.runtimes.executorch.tensors import Binding

VERSION = version("executorch")
_log = logging.getLogger("ghostdeploy")


def _open_binding() -> Binding:
    found = open_library()
    if found is not None:
        return found
    if find_spec("torch") is None:
        raise MissingDependency(
            f"ExecuTorch {VERSION} can be run here by its extension only, which needs torch, not installed here",
            hint=f"pip install torch, or on Linux executorch {RELEASES[-1]}, which is run without it",
        )
    from ghostdeploy.runtimes.executorch.extension import Extension

    return Extension()


_binding = _open_binding()


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
            if self._users == 0 and (self._forked or threads != _binding.thread_count()):
                _binding.reset_threads(threads)
                self._forked = False
            self._users += 1
            found = _binding.thread_count()
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
        input_names: Of inputs, where the program has them.
        output_names: Likewise.
        threads: Threads it has.
        inputs: Type and shape of each input.
        outputs: Likewise.

    Raises:
        ValueError: It is no program, or is damaged.
        RuntimeError: ExecuTorch does not load it.
    """

    def __init__(self, data: bytes, *, threads: int) -> None:
        self.input_names, self.output_names = program.read_names(data)
        self._lock = threading.Lock()
        self.threads = _pool.enter(threads)
        try:
            with hushed():
                self._method = _binding.load(data, program.METHOD)
        except BaseException:
            _pool.leave()
            raise
        self.inputs, self.outputs = self._method.inputs, self._method.outputs

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs one batch.

        Args:
            arrays: As the program declares, in its order.

        Returns:
            Copies of the outputs.

        Raises:
            RuntimeError: An operator failed.
        """
        ready = [np.require(array, requirements=["C", "W"]) for array in arrays]
        with self._lock:
            return self._method.run(ready)

    def close(self) -> None:
        """Frees the network."""
        with self._lock:
            del self._method
            _pool.leave()

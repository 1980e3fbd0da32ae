"""A compiled network, opened from bytes in memory, and run on one image.

The system's loader reads files, so it gets a private copy of the bytes whose hash was compared: in memory where the
system has such files, else in a folder that is removed at once.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.arrays import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Library:
    """A compiled network; may be run from many threads at once, each call with an arena of its own.

    Args:
        data: The shared library.
        weights: `weights.bin`, read in place.
        identity: SHA-256 of the network.
        threads: That compute one image together.

    Raises:
        OSError: The system cannot load it.
        ValueError: It is not such a library, or of another network.
    """

    def __init__(self, data: bytes, weights: NDArray[np.uint8], identity: str, *, threads: int = 1) -> None:
        self._library, self._file = _loaded(data)
        self._team: Team | None = None
        try:
            self._read(identity)
        except ValueError:
            self._unload()
            raise
        self._weights = weights
        self._arenas: list[NDArray[np.uint8]] = []
        self._team = Team(self._library, threads) if threads > 1 else None

    def _read(self, identity: str) -> None:
        try:
            told, run, size = self._library.ghost_identity, self._library.ghost_run, self._library.ghost_arena_bytes
        except AttributeError as error:
            raise ValueError(f"the library is not a compiled network: {error}") from error
        told.argtypes, told.restype = [], ctypes.c_char_p
        if told() != identity.encode():
            raise ValueError("the library is of another network than its plan")
        run.argtypes, run.restype = [ctypes.c_void_p] * 4, ctypes.c_int
        size.argtypes, size.restype = [], ctypes.c_size_t
        self._run = run
        self.arena_bytes = int(size())

    @property
    def functions(self) -> ctypes.CDLL:
        """Everything that the library exports."""
        return self._library

    def run(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[np.float32]]) -> None:
        """Computes one image.

        Args:
            inputs: C-contiguous, of the types and sizes in the plan.
            outputs: Likewise; written.
        """
        if self._team is not None:
            failed = self._team.run(self.arena_bytes, self._weights.ctypes.data, _pointers(inputs), _pointers(outputs))
        else:
            try:
                arena = self._arenas.pop()  # atomic, like `append`
            except IndexError:
                arena = aligned(self.arena_bytes)
            try:
                failed = self._run(self._weights.ctypes.data, arena.ctypes.data, _pointers(inputs), _pointers(outputs))
            finally:
                self._arenas.append(arena)
        if failed:
            raise RuntimeError(f"the library returned {failed}")

    def close(self) -> None:
        """Unloads the library."""
        if self._team is not None:
            self._team.close()
        del self._run
        self._arenas.clear()
        self._unload()

    def _unload(self) -> None:
        """Unloads the library before its file's number may be another one's."""
        if hasattr(_ctypes, "dlclose"):
            _ctypes.dlclose(self._library._handle)
        del self._library
        if self._file is not None:
            os.close(self._file)


class Team:
    """Threads of a library that compute one image together; callers take turns.

    They start with the first image. A forked child has none of them, so it ends none.

    Args:
        library: The library.
        threads: How many, the caller among them.
    """

    def __init__(self, library: Any, threads: int) -> None:
        self._network, self._threads = ctypes.cast(library.ghost_run_part, ctypes.c_void_p), threads
        self._new, self._free, self._run = (
            library.ghost_threads_new,
            library.ghost_threads_free,
            library.ghost_threads_run,
        )
        self._new.argtypes, self._new.restype = [ctypes.c_int], ctypes.c_void_p
        self._free.argtypes, self._free.restype = [ctypes.c_void_p], None
        self._run.argtypes, self._run.restype = [ctypes.c_void_p] * 6, ctypes.c_int
        self._started: int | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._arenas: list[NDArray[np.uint8]] = []

    def run(self, size: int, weights: int, inputs: Any, outputs: Any) -> int:
        """Computes one image; returns what the library returns.

        Args:
            size: Bytes of an arena.
            weights: Address.
            inputs: Addresses.
            outputs: Addresses.

        Raises:
            MemoryError: The threads cannot be started.
        """
        with self._lock:
            if self._started is None:
                self._started = self._new(self._threads)
                self._arenas = [aligned(size) for _ in range(self._threads)]
            if not self._started:
                self._started = None
                raise MemoryError(f"{self._threads} threads cannot be started")
            found: int = self._run(self._started, self._network, weights, _pointers(self._arenas), inputs, outputs)
            return found

    def close(self) -> None:
        """Ends the threads."""
        if self._started is not None and self._process == os.getpid():
            self._free(self._started)
            self._started = None


def _pointers(arrays: Sequence[NDArray[Any]]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _loaded(data: bytes) -> tuple[ctypes.CDLL, int | None]:
    """Returns a library, and the file that must stay open as long as it is loaded.

    The loader knows libraries by path: it would give what was loaded from a number of a file for another one that has
    this number now.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("ghostdeploy", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(file), "wb") as stream:
                stream.write(data)
            return ctypes.CDLL(f"/proc/self/fd/{file}"), file
        except BaseException:
            os.close(file)
            raise
    suffix = ".dll" if sys.platform == "win32" else ".so"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"network{suffix}"
        path.write_bytes(data)
        return ctypes.CDLL(str(path)), None

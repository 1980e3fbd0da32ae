"""What a forked child must not free, and what must have ended before the interpreter does.

A child gets a copy of the memory and none of the threads. An engine that frees a model there waits for threads that do
not exist: OpenVINO 2026.4.1 hangs as soon as the child drops its last reference, for example by loading the model again
under the same name. So the child never drops it; its memory is the parent's until it is written to.

A result that an engine's own thread brings after the interpreter has ended has nobody to take it: ONNX Runtime 1.32
then aborts the process. So what is still open is closed when the interpreter ends, and closing waits for what was
submitted.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghostdeploy.runtimes.base import Runtime

_open: weakref.WeakSet[Runtime] = weakref.WeakSet()
_watched: list[bool] = []


def watch(runtime: Runtime) -> None:
    """Makes a runtime immortal in children that are forked from now on, and closes it at the end of this process."""
    if not _watched:
        _watched.append(True)
        atexit.register(_close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_keep)
    _open.add(runtime)


def _keep() -> None:
    for runtime in list(_open):
        # A reference that nothing ever gives back, not even the end of the interpreter.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))


def _close() -> None:
    for runtime in list(_open):
        runtime.close()

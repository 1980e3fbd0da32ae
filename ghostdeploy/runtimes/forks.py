"""What a forked child must not free.

A child gets a copy of the memory and none of the threads. An engine that frees a model there waits for threads that do
not exist: OpenVINO 2026.4.1 hangs as soon as the child drops its last reference, for example by loading the model again
under the same name. So the child never drops it; its memory is the parent's until it is written to.
"""

from __future__ import annotations

import ctypes
import os
import weakref

_open: weakref.WeakSet[object] = weakref.WeakSet()
_watched: list[bool] = []


def keep_in_children(owner: object) -> None:
    """Makes an object immortal in children that this process forks from now on; here nothing changes."""
    if not _watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_keep)
        _watched.append(True)
    _open.add(owner)


def _keep() -> None:
    for owner in list(_open):
        # A reference that nothing ever gives back, not even the end of the interpreter.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))

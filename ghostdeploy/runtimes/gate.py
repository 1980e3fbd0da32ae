"""The life cycle of a runtime: running calls, closing, a forked child, the end of the interpreter.

enter → inside + 1, refused when closed or in a forked child
leave → inside − 1
close → no more enter; waits until inside = 0; True for the first closer only

A child gets a copy of the memory and none of the threads. An engine that frees a model there waits for threads that do
not exist: OpenVINO 2026.4.1 hangs as soon as the child drops its last reference, for example by loading the model again
under the same name. So the child never drops it; its memory is the parent's until it is written to.

A result that an engine's own thread delivers after the interpreter has ended has no receiver: ONNX Runtime 1.32 then
aborts the process. So an open runtime is closed when the interpreter ends, and closing waits for submitted batches.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from typing import TYPE_CHECKING

from ghostdeploy.errors import UsageError

if TYPE_CHECKING:
    from ghostdeploy.runtimes.base import Runtime


class Gate:
    """Lets calls in until it is closed.

    Args:
        name: What stands behind it, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = os.getpid()
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._closed = False

    def enter(self) -> None:
        """Counts one call in.

        Raises:
            UsageError: Closed, or this process was forked from the one that loaded the model.
        """
        if self._process != os.getpid():  # before the lock: its owner may not exist in this process
            raise UsageError(
                f"{self._name} was loaded before this process was forked, and its engine's threads were not copied",
                hint="call ghostdeploy.load in the child process, or start it with multiprocessing's spawn method",
            )
        with self._changed:
            if self._closed:
                raise UsageError(f"{self._name} was closed", hint="call ghostdeploy.load again")
            self._inside += 1

    def leave(self) -> None:
        """Counts one call out."""
        with self._changed:
            self._inside -= 1
            if self._closed:
                self._changed.notify_all()

    def close(self) -> bool:
        """Shuts the door and waits for the calls inside.

        Returns:
            Whether the caller shall free what is behind it: True once, and never in a forked child.
        """
        if self._process != os.getpid():
            return False
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: self._inside == 0)
        return first


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

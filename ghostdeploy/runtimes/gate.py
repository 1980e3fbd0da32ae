"""The door of a runtime: counts the calls inside, and closes once the last one is out.

enter → inside + 1, refused when closed or in a forked child
leave → inside − 1
close → no more enter; waits until inside = 0; True for the first closer only
"""

from __future__ import annotations

import os
import threading

from ghostdeploy.errors import UsageError


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

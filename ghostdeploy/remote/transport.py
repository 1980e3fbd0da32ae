"""What reaches a device that has Python: a program whose standard streams are those of a process there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ghostdeploy.errors import GhostDeployError

BOOT = "import sys;sys.path[:]=filter(None,sys.path);exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""What the process there runs: it reads the length of a program, then the program, and imports nothing from the folder
where it was started. Shells take it in double quotes."""


class Transport(Protocol):
    """One way to one device."""

    where: str
    """As the user gave it."""
    emulator: str | None
    """What computes the device; None where it is real."""
    base: str | None
    """Folder for objects there; None is the user's cache."""

    def command(self) -> list[str]:
        """Returns the words that start Python there with `BOOT`."""
        ...

    def environment(self) -> dict[str, str]:
        """Returns the environment of that program."""
        ...

    def explain(self, code: int, said: str) -> GhostDeployError:
        """Returns the error for a program that ended without an answer.

        Args:
            code: Its exit code.
            said: What it wrote to standard error.
        """
        ...

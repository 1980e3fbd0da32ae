"""Programs that make the emulator, apt-get, dpkg-deb and pip: run to their end, with the reason where they fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from ghostdeploy.errors import MissingDependency, OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_FULL = re.compile(r"no space left on device|enough free space|disk quota exceeded", re.IGNORECASE)
_SAID = re.compile(r"^(?:E|ERROR|Err:\d+|dpkg-deb: error): *(.+)", re.MULTILINE)


class ProgramFailed(Exception):
    """A program ended with an error.

    Args:
        output: All it printed.
    """

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output

    @property
    def reason(self) -> str:
        """The first error of its output, on one line."""
        lines = _SAID.findall(self.output) or [line for line in self.output.splitlines() if line.strip()][-1:]
        return lines[0].strip() if lines else "it ended without a word"


def require(*names: str) -> None:
    """Checks that programs of Debian are here.

    Raises:
        MissingDependency: Names those that are not.
    """
    absent = [name for name in names if shutil.which(name) is None]
    if absent:
        raise MissingDependency(
            f"setting up the emulator needs {' and '.join(absent)} of Debian, not found here",
            hint="do it in a container of Debian, or use a real board: --on ssh://HOST",
        )


def run(words: Sequence[str | Path], *, folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """Runs a program to its end, in English.

    Args:
        words: Its command.
        folder: Working folder.
        variables: Of the environment, in addition to ours.

    Returns:
        What it printed.

    Raises:
        OutputError: The disk is full.
        ProgramFailed: It ended with another error.
    """
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"} | dict(variables or {})
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    if _FULL.search(done.stdout):
        raise disk_full(folder)
    raise ProgramFailed(done.stdout)


def disk_full(folder: Path) -> OutputError:
    """Returns the error for a disk on which the emulator has no room."""
    return OutputError(
        f"the emulator does not fit on the disk of {folder}",
        hint="free 700 MB there, or set GHOSTDEPLOY_EMULATOR to a folder on another disk",
    )

"""Emulated Arm cores: a device that is a process of this machine; see `emulator`.

An emulated program cannot start another Arm program, so every child of the work there is started through the emulator,
by `isolation.INTERPRETER`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ghostdeploy.errors import ExportFailed, GhostDeployError
from ghostdeploy.isolation import INTERPRETER
from ghostdeploy.remote.emulator import prepare
from ghostdeploy.remote.transport import BOOT

if TYPE_CHECKING:
    from ghostdeploy.progress import Listener
    from ghostdeploy.remote.address import Address


class Qemu:
    """An emulated core; see `Transport`.

    Args:
        address: Names the core.
        listener: Receives the progress of what is fetched the first time.

    Raises:
        GhostDeployError: See `emulator.prepare`.
    """

    def __init__(self, address: Address, listener: Listener) -> None:
        self._emulator = prepare(address.host, listener=listener)
        self.where = address.text
        self.emulator: str | None = f"qemu {self._emulator.facts.qemu}"
        self.base: str | None = str(self._emulator.folder.parent / "device")

    def command(self) -> list[str]:
        """See `Transport`."""
        return [*self._emulator.interpreter, "-c", BOOT]

    def environment(self) -> dict[str, str]:
        """See `Transport`."""
        found = self._emulator.environment(variables={INTERPRETER: json.dumps(self._emulator.interpreter)})
        found.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling what was sent takes seconds there, once
        return found

    def explain(self, code: int, said: str) -> GhostDeployError:
        """See `Transport`."""
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        return ExportFailed(f"Python on the emulated {self._emulator.core.name} ended with code {code}: {last}")

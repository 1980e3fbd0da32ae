"""No telemetry: turns off what engines report on their own, in one place, before it starts.

engine          what it does by default                               what turns it off
ONNX Runtime    from 1.29, outside Windows, `import onnxruntime`      ORT_DISABLE_TELEMETRY=1 while it is imported;
                writes a device id and queues an event in ~/.cache    `disable_telemetry_events` comes too late
OpenVINO        `import openvino` reports to Intel through            that package cannot be imported: OpenVINO goes
                openvino-telemetry, which it requires                 on with its own stub
LiteRT          nothing; on Windows, and beside a vendor's kit, it    as above
                imports OpenVINO
TensorRT        nothing
Ray             a cluster reports its usage                           RAY_USAGE_STATS_ENABLED=0 when it starts

Each engine decides once, when it is imported. So every import of one stands in `with silent():`, which changes the
environment of the process for that long and no longer. What the application imported before, or asks an engine for
itself, is its own business, and cannot be undone.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = {"HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
"""Environment variables that turn telemetry off."""
REPORTERS = ("openvino_telemetry",)
"""Packages that do nothing but report."""


class _Silence:
    """Counts the blocks under way, in all threads: the first in changes the process, the last out restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: dict[str, str | None] = {}
        self._hidden: list[str] = []

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = {name: os.environ.get(name) for name in VARIABLES}
                self._hidden = [name for name in REPORTERS if name not in sys.modules]
                silence_process()

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            for name, value in self._before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            for name in self._hidden:
                sys.modules.pop(name, None)


_silence = _Silence()


@contextmanager
def silent() -> Iterator[None]:
    """Engines that are imported in the block report to nobody; one imported before stays as it is."""
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


def silence_process() -> None:
    """Does for good what `silent` does for a block: for processes that are ours, never for an application's."""
    os.environ.update(VARIABLES)
    for name in REPORTERS:
        # None is how Python marks a module that shall not be found; one imported before stays.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]

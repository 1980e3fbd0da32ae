"""What the end of a process by a signal means.

An illegal instruction is the usual end of an engine that was built for a newer processor: nearly always LSE atomics or
an ARMv8.2 set on a core of ARMv8.0, as ONNX Runtime 1.21.0 on a Raspberry Pi 4 (microsoft/onnxruntime#23957, mended in
1.22), or AVX-512 on an older x86.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from ghostdeploy.device import cores
from ghostdeploy.errors import ExportFailed, GhostDeployError, UnsupportedHardware

if TYPE_CHECKING:
    from ghostdeploy.device.records import Device

_SHELL = 128
"""A shell reports the end by signal N as 128 + N."""


def signal_of(code: int) -> signal.Signals | None:
    """Returns the signal that ended a process with this exit code; None where none did."""
    number = -code if code < 0 else code - _SHELL
    return signal.Signals(number) if number in set(signal.Signals) else None


def explain(code: int, engine: str, device: Device, last: str) -> GhostDeployError:
    """Returns the error for a process that ended without an answer.

    Args:
        code: Its exit code, negative for a signal.
        engine: Engine and version that ran in it.
        device: Where.
        last: The last line it wrote.
    """
    ended = signal_of(code)
    on = device.processor or device.architecture
    if ended is signal.SIGILL:
        lacks = cores.lacking(device.architecture, device.features)
        without = f" without {', '.join(lacks)}" if lacks else ""
        return UnsupportedHardware(
            f"{engine} stopped at an instruction that {on}{without} does not have (SIGILL)",
            hint="install the engine's newest version, or export -t ncnn, which chooses its kernels by the processor",
        )
    if ended is signal.SIGKILL:
        return UnsupportedHardware(
            f"{engine} was killed on {on}, most likely for want of memory", hint="free some memory there"
        )
    how = f"by {ended.name}" if ended is not None else f"with code {code}"
    return ExportFailed(f"{engine} ended {how} on {on}" + (f": {last}" if last else ""))

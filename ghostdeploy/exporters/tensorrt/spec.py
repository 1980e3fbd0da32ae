"""The options of the TensorRT exporter: GPU architectures and compatibility flags.

Imports neither NVIDIA's library nor onnx, so that a command line may check a request before any work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.errors import UsageError, did_you_mean
from ghostdeploy.nvidia.kit import HardwareCompatibility  # noqa: TC001 - msgspec resolves annotations at run time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ghostdeploy.target import Setting

COMPUTE_CAPABILITIES: tuple[str, ...] = ("75", "80", "86", "89", "120", "121")
"""Architectures that TensorRT for RTX builds engines for on a machine without them: its `ComputeCapability` enum."""

_ON_DEVICE: dict[str, str] = {
    "53": "Jetson Nano",
    "70": "Volta",
    "72": "Jetson Xavier",
    "87": "Jetson Orin",
    "90": "Hopper",
    "100": "Blackwell B200",
    "101": "Jetson Thor",
    "103": "Blackwell B300",
    "110": "Jetson Thor",
}
"""Architectures whose engines are built on the device only."""


class TensorRTOptions(Record, frozen=True, kw_only=True):
    """Settings of one export, see the row."""

    sm: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"


def check_sms(names: Iterable[str]) -> tuple[str, ...]:
    """Returns architectures as they are spelled here: `86` for 86, 8.6 and sm_86; each once.

    Raises:
        UsageError: There is no such architecture, or its engines can be built on the device only.
    """
    found = []
    for name in names:
        plain = name.strip().lower().removeprefix("sm").removeprefix("_").replace(".", "")
        if plain in _ON_DEVICE:
            raise UsageError(
                f"no engine for sm {plain} ({_ON_DEVICE[plain]}) can be built without that GPU, "
                f"expected {', '.join(COMPUTE_CAPABILITIES)}",
                hint="leave it out, and finish the bundle on the device: ghostdeploy build BUNDLE",
            )
        if plain not in COMPUTE_CAPABILITIES:
            known = f"architectures are {', '.join(COMPUTE_CAPABILITIES)}"
            raise UsageError(
                f"unknown GPU architecture {name!r}", hint=did_you_mean(plain, COMPUTE_CAPABILITIES, otherwise=known)
            )
        found.append(plain)
    return tuple(dict.fromkeys(found))


def check_settings(settings: dict[str, Setting]) -> dict[str, Setting]:
    """Returns the settings of a request as they are spelled here, see `check_sms`."""
    return settings | {"sm": check_sms(read_settings(settings).sm)}


def read_settings(settings: dict[str, Setting]) -> TensorRTOptions:
    """Returns settings by name as one record."""
    return msgspec.convert(settings, TensorRTOptions)

"""What is known of a device, and what was seen on it while it worked."""

from __future__ import annotations

from typing import Literal

from ghostdeploy.bundle.record import Record
from ghostdeploy.device.cores import CoreKind  # noqa: TC001 - msgspec resolves annotations at run time

Reached = Literal["home", "ssh", "adb", "qemu", "kit"]


class State(Record, frozen=True, kw_only=True):
    """What changes while a device works; a field is None where it cannot be read, `Device.unread` says why."""

    seconds: float
    """Since the first one, by a clock that nobody sets."""
    frequencies_mhz: dict[str, float] | None
    """Current, by the kernel's frequency policy."""
    temperatures_c: dict[str, float] | None
    """By thermal zone."""
    throttled: int | None
    """Raspberry Pi's flags: bits 0 to 3 under-voltage, capped, throttled, soft limit; 16 to 19 the same since boot."""
    load: float | None
    """Processes that want a core, over the last minute."""
    memory_available: int | None
    """Bytes."""


class Device(Record, frozen=True, kw_only=True):
    """A device; a field is None where it cannot be read, `unread` says why."""

    where: str
    """How it was reached, as given: `ssh://pi@kitchen`; `home` for this machine."""
    reached: Reached
    emulated: bool
    """Its processor is computed by another one: times mean nothing."""
    emulator: str | None
    model: str | None
    """`Raspberry Pi 4 Model B Rev 1.4`."""
    architecture: str
    processor: str | None
    cores: tuple[CoreKind, ...]
    features: tuple[str, ...]
    """Instruction sets, as the kernel spells them."""
    usable_cores: int
    memory: int | None
    """Bytes."""
    system: str | None
    """Name of the distribution."""
    kernel: str
    libc: str | None
    python: str
    governors: dict[str, str] | None
    """By frequency policy."""
    most_mhz: dict[str, float] | None
    """Highest frequency, by policy."""
    trips_c: dict[str, float] | None
    """Temperature at which the system slows down, by thermal zone."""
    clock: str
    """Its own time, UTC."""
    unread: dict[str, str]
    """Why a field is None, here or in every `State`."""

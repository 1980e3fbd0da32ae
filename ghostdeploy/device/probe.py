"""Reads what a device is, and how it is doing; imports no engine, starts nothing, sets nothing.

Everything comes from the files of Linux: /proc/cpuinfo, the device tree, cpufreq, thermal zones. What is not there or
may not be read is None, and the reason is kept.
"""

from __future__ import annotations

import platform
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy import machine
from ghostdeploy.device import cores
from ghostdeploy.device.records import Device, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.device.records import Reached

_ROOT = Path("/")
_CPUFREQ = "sys/devices/system/cpu/cpufreq"
_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_SLOWS_DOWN = ("passive", "hot", "critical")
"""Kinds of trip points, the first that a zone has counts."""
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class Reader:
    """Reads files below a root and remembers why one could not be read.

    Args:
        root: Folder with `proc` and `sys`.

    Attributes:
        unread: Reasons by field.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self.root = root
        self.unread: dict[str, str] = {}

    def text(self, field: str, *names: str) -> str | None:
        """Returns the content of the first of several files that can be read, without NULs and spaces around."""
        reasons = []
        for name in names:
            try:
                return (self.root / name).read_bytes().decode("utf-8", "replace").strip("\0\n ")
            except OSError as error:
                reasons.append(f"/{name}: {error.strerror}")
        self.unread[field] = "; ".join(reasons)
        return None

    def each(
        self, field: str, pattern: str, read: Callable[[Path], tuple[str, float] | None]
    ) -> dict[str, float] | None:
        """Returns (name, number) of every folder that matches; None and a reason where there is none."""
        found = dict(one for path in sorted(self.root.glob(pattern)) if (one := read(path)) is not None)
        if not found:
            self.unread[field] = f"no readable /{pattern}"
        return found or None


def probe(where: str = "home", reached: Reached = "home", *, emulator: str | None = None, root: Path = _ROOT) -> Device:
    """Returns what this machine is.

    Args:
        where: How it was reached, as the user wrote it.
        reached: In which way.
        emulator: What computes it, if it is emulated.
        root: Folder with `proc` and `sys`.
    """
    read = Reader(root)
    cpuinfo = read.text("cores", "proc/cpuinfo") or ""
    kinds, flags = cores.core_kinds(cpuinfo), _features(cpuinfo)
    name, version = platform.libc_ver()
    architecture = platform.machine().lower()
    found = Device(
        where=where,
        reached=reached,
        emulated=emulator is not None,
        emulator=emulator,
        model=read.text("model", "proc/device-tree/model", "sys/class/dmi/id/product_name"),
        architecture=_ARCHITECTURES.get(architecture, architecture),
        processor=cores.processor(kinds),
        cores=kinds,
        features=flags,
        usable_cores=machine.usable_cores(root),
        memory=_memory(read, "MemTotal", "memory"),
        system=_distribution(read),
        kernel=platform.release(),
        libc=f"{name} {version}" if name else None,
        python=platform.python_version(),
        governors=_governors(read),
        most_mhz=read.each("most_mhz", f"{_CPUFREQ}/policy*", lambda path: _mhz(path, "cpuinfo_max_freq")),
        trips_c=read.each("trips_c", "sys/class/thermal/thermal_zone*", _trip),
        clock=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        unread=read.unread,
    )
    _observed(read, time.monotonic())  # for why a state lacks something
    if found.libc is None:
        read.unread["libc"] = "the interpreter names none"
    if found.processor is None:
        read.unread.setdefault("processor", "/proc/cpuinfo names no part or model")
    return found


def observe(began: float, *, root: Path = _ROOT) -> State:
    """Returns how this machine is doing.

    Args:
        began: `time.monotonic()` of the first observation.
        root: Folder with `proc` and `sys`.
    """
    return _observed(Reader(root), began)


def _observed(read: Reader, began: float) -> State:
    throttled = read.text("throttled", _THROTTLED)
    load = (read.text("load", "proc/loadavg") or "").split(" ")[0]
    return State(
        seconds=round(time.monotonic() - began, 3),
        frequencies_mhz=read.each("frequencies_mhz", f"{_CPUFREQ}/policy*", lambda one: _mhz(one, "scaling_cur_freq")),
        temperatures_c=read.each("temperatures_c", "sys/class/thermal/thermal_zone*", lambda path: _zone(path, "temp")),
        throttled=_whole(throttled, base=16),
        load=float(load) if load.replace(".", "", 1).isdecimal() else None,
        memory_available=_memory(read, "MemAvailable", "memory_available"),
    )


def _features(cpuinfo: str) -> tuple[str, ...]:
    """Returns the flags that every core has, in the kernel's order."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    sets = [value.split() for key, _, value in lines if key.strip() in {"flags", "Features"}]
    return tuple(flag for flag in sets[0] if all(flag in other for other in sets)) if sets else ()


def _governors(read: Reader) -> dict[str, str] | None:
    found = {
        path.parent.name: _content(path) for path in sorted(read.root.glob(f"{_CPUFREQ}/policy*/scaling_governor"))
    }
    if not found:
        read.unread["governors"] = f"no readable /{_CPUFREQ}/policy*/scaling_governor"
    return {name: text for name, text in found.items() if text} or None


def _memory(read: Reader, key: str, field: str) -> int | None:
    for line in (read.text(field, "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == key and (size := _whole(value.split()[0] if value.split() else None)) is not None:
            return size * 1024
    return None


def _distribution(read: Reader) -> str | None:
    for line in (read.text("system", "etc/os-release", "usr/lib/os-release") or "").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip("\"'")
    return None


def _mhz(path: Path, name: str) -> tuple[str, float] | None:
    value = _whole(_content(path / name))
    return None if value is None else (path.name, value / 1000)


def _zone(path: Path, name: str) -> tuple[str, float] | None:
    value = _whole(_content(path / name))
    return None if value is None else (f"{_content(path / 'type') or 'zone'} {path.name[12:]}", value / 1000)


def _trip(path: Path) -> tuple[str, float] | None:
    kinds = {_content(one): one.name.replace("_type", "_temp") for one in path.glob("trip_point_*_type")}
    return next((_zone(path, kinds[kind]) for kind in _SLOWS_DOWN if kind in kinds), None)


def _content(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip("\0\n ")
    except OSError:  # a file that the kernel or the system's rules keep to themselves
        return None


def _whole(text: str | None, base: int = 10) -> int | None:
    try:
        return None if text is None else int(text.partition("=")[2] or text, base)
    except ValueError:
        return None

"""What an Android device is, and how it is doing: its properties, `dumpsys`, and what the runner reads of the kernel.

    getprop                 model, system on a chip, board, build, architectures
    dumpsys battery         level, temperature, whether it charges
    dumpsys thermalservice  status 0 to 6, from none to shutdown (Android 10 and later)
    runner probe            cores, frequencies, thermal zones, memory

What is not told is None.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.record import Record
from ghostdeploy.device import cores
from ghostdeploy.device.records import Device, State
from ghostdeploy.errors import UnsupportedHardware

if TYPE_CHECKING:
    from ghostdeploy.remote.adb import Adb

_ARCHITECTURES = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}
"""Android's names of those that have a runner."""
_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
_VIRTUAL = ("goldfish", "ranchu", "cutf_cvm")
"""`ro.hardware` of Android's emulator and of Cuttlefish."""
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_BETWEEN = "--ghostdeploy--"
_NOT_READ = "there is no Python on the device to read it, and the runner does not"


class Android(Record, frozen=True, kw_only=True):
    """What Android tells of its device."""

    serial: str
    model: str | None
    chip: str | None
    """`ro.soc.model`, from Android 12 on."""
    board: str | None
    fingerprint: str | None
    """Of the build."""
    release: str | None
    architecture: str
    battery_percent: int | None
    battery_c: float | None
    charging: bool | None
    thermal_status: str | None
    """`none` to `shutdown`."""
    clock: str
    """Its own time, UTC."""
    emulated: bool
    """It is Android's emulator."""


def look(adb: Adb) -> Android:
    """Returns what Android tells.

    Raises:
        UnsupportedHardware: There is no runner for its architecture.
        ExportFailed: The connection was lost.
    """
    said, clock, battery, thermal = _sections(adb)
    found = {name: value for name, value in _PROPERTY.findall(said) if value}
    names = found.get("ro.product.cpu.abilist", found.get("ro.product.cpu.abi", "")).split(",")
    architecture = next((_ARCHITECTURES[name] for name in names if name in _ARCHITECTURES), None)
    if architecture is None:
        raise UnsupportedHardware(
            f"{adb.where} runs {names[0] or 'an unknown architecture'}, expected {' or '.join(_ARCHITECTURES)}",
            hint="32-bit devices have no runner",
        )
    tenths, status = _number(battery, "temperature"), _number(thermal, "Thermal Status")
    words = [one for key in ("manufacturer", "model") if (one := found.get(f"ro.product.{key}"))]
    powered = re.findall(r"^ *(?:AC|USB|Wireless|Dock) powered: (true|false)", battery, re.MULTILINE)
    return Android(
        serial=adb.where.removeprefix("adb://"),
        model=" ".join(words) or None,
        chip=found.get("ro.soc.model"),
        board=found.get("ro.board.platform"),
        fingerprint=found.get("ro.build.fingerprint"),
        release=found.get("ro.build.version.release"),
        architecture=architecture,
        battery_percent=_number(battery, "level"),
        battery_c=None if tenths is None else tenths / 10,
        charging="true" in powered if powered else None,
        thermal_status=_THERMAL[status] if status is not None and 0 <= status < len(_THERMAL) else None,
        clock=clock.strip(),
        emulated="1" in (found.get("ro.boot.qemu"), found.get("ro.kernel.qemu"))
        or found.get("ro.hardware") in _VIRTUAL,
    )


def device(android: Android, probed: dict[str, Any]) -> Device:
    """Returns the record of a device.

    Args:
        android: What Android tells.
        probed: What the runner reads.
    """
    listed = probed["cores"]
    kinds = cores.core_kinds("\n\n".join(_block(core) for core in listed))
    flags = [(core.get("Features") or "").split() for core in listed]
    governors = {f"cpu{core['processor']}": core["governor"] for core in listed if core.get("governor")} or None
    unread = dict.fromkeys(("libc", "trips_c", "throttled", "load"), _NOT_READ)
    most, first = _mhz(listed, "cpuinfo_max_freq"), state(android, probed, 0.0)
    frequencies = "no readable /sys/devices/system/cpu/cpu*/cpufreq"
    found: dict[str, tuple[Any, str]] = {
        "governors": (governors, frequencies),
        "most_mhz": (most, frequencies),
        "frequencies_mhz": (first.frequencies_mhz, frequencies),
        "temperatures_c": (first.temperatures_c, "no readable /sys/class/thermal, and no battery in dumpsys"),
        "memory_available": (first.memory_available, "no readable /proc/meminfo"),
    }
    unread |= {name: why for name, (value, why) in found.items() if value is None}
    emulator = probed.get("executed by") or ("Android's emulator" if android.emulated else None)
    processor = " ".join(word for word in (android.chip or android.board, cores.processor(kinds)) if word)
    return Device(
        where=f"adb://{android.serial}",
        reached="adb",
        emulated=emulator is not None,
        emulator=emulator,
        model=android.model or probed.get("model"),
        architecture=android.architecture,
        processor=processor or None,
        cores=kinds,
        features=tuple(flag for flag in flags[0] if all(flag in other for other in flags)) if flags else (),
        usable_cores=probed["cpus"],
        memory=probed.get("memory"),
        system=None if android.release is None else f"Android {android.release}, {android.fingerprint}",
        kernel=probed.get("kernel") or "",
        libc=None,
        python="none",
        governors=governors,
        most_mhz=most,
        trips_c=None,
        clock=android.clock,
        unread=unread,
    )


def state(android: Android, said: dict[str, Any], seconds: float) -> State:
    """Returns how a device is doing.

    Args:
        android: Read at the same time, for the battery.
        said: What the runner reads.
        seconds: Since the first one.
    """
    zones = {
        f"{zone['type']} {number}": zone["millidegrees"] / 1000
        for number, zone in enumerate(said["thermal zones"])
        if zone["millidegrees"] is not None
    }
    battery = {} if android.battery_c is None else {"battery": android.battery_c}
    return State(
        seconds=round(seconds, 3),
        frequencies_mhz=_mhz(said["cores"], "scaling_cur_freq"),
        temperatures_c=zones | battery or None,
        throttled=None,
        load=None,
        memory_available=said.get("memory available"),
    )


def _sections(adb: Adb) -> list[str]:
    """Returns what each of the commands says; on a device that lacks one it says so, in words that nothing matches."""
    commands = ("getprop", "date -u +%Y-%m-%dT%H:%M:%S+00:00", "dumpsys battery", "dumpsys thermalservice")
    found = adb.ask(f"\necho {_BETWEEN}\n".join(commands) + "\ntrue").split(f"{_BETWEEN}\n")
    return [*found, *[""] * len(commands)][: len(commands)]


def _number(text: str, key: str) -> int | None:
    found = re.search(rf"^ *{key}: (-?\d+) *$", text, re.MULTILINE)
    return None if found is None else int(found[1])


def _block(core: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in core.items() if isinstance(value, str))


def _mhz(listed: list[dict[str, Any]], key: str) -> dict[str, float] | None:
    return {f"cpu{core['processor']}": core[key] / 1000 for core in listed if core.get(key)} or None

"""Where a device is: `ssh://[user@]host[:port]`, `adb://SERIAL`, `qemu://CORE`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ghostdeploy.errors import UsageError, did_you_mean

Kind = Literal["ssh", "adb", "qemu"]
CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
_HOST = re.compile(r"\[[0-9a-fA-F:.]+(%[\w.]+)?\]|[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-\\@]*")
_SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]*")
_FORMS = "ssh://[user@]host[:port], adb://SERIAL, qemu://cortex-a53|cortex-a72|cortex-a76"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A device."""

    text: str
    """As given."""
    kind: Kind
    host: str
    """Host, serial number, or core."""
    user: str | None = None
    port: int | None = None


def parse(text: str) -> Address:
    """Reads an address.

    Raises:
        UsageError: It has none of the three forms; nothing in it can be taken for an option of a program.
    """
    kind, separator, rest = text.partition("://")
    rest = rest.rstrip("/")
    if separator and kind == "qemu":
        if rest not in CORES:
            hint = did_you_mean(rest, CORES, otherwise=f"cores are {', '.join(CORES)}")
            raise UsageError(f"no emulated core is called {rest!r}", hint=hint)
        return Address(text=text, kind="qemu", host=rest)
    if separator and kind == "adb" and _SERIAL.fullmatch(rest):
        return Address(text=text, kind="adb", host=rest)
    if separator and kind == "ssh":
        return _ssh(text, rest)
    raise UsageError(f"{text!r} is no device", hint=f"expected {_FORMS}")


def _ssh(text: str, rest: str) -> Address:
    user, at, place = rest.rpartition("@")
    found = re.fullmatch(rf"({_HOST.pattern})(?::(\d{{1,5}}))?", place)
    port = int(found[3]) if found and found[3] else None
    if not found or (at and not _USER.fullmatch(user)) or (port is not None and not 0 < port < 1 << 16):
        raise UsageError(f"{text!r} names no host", hint="expected ssh://[user@]host[:port]")
    return Address(text=text, kind="ssh", host=found[1].strip("[]"), user=user or None, port=port)

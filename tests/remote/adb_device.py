"""A folder that plays an Android device, behind `adb_stand_in.py`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ghostdeploy.remote import adb as adb_module

PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Phone 7",
    "ro.soc.model": "EX100",
    "ro.board.platform": "kona",
    "ro.build.fingerprint": "example/phone/phone:14/AB1.234/5678:user/release-keys",
    "ro.build.version.release": "14",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
}
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  level: 83
  temperature: 305
"""
THERMAL = """IsStatusOverride: false
Thermal Status: 1
"""
DF = """Filesystem       1K-blocks    Used Available Use% Mounted on
/dev/block/dm-40 {total:>10} 1234567 {free:>9}  12% /data/user/0
"""


@dataclass
class Settings:
    """What the stand-in plays."""

    serial: str = "R58M123"
    devices: dict[str, str] = field(default_factory=lambda: {"R58M123": "device"})
    old: bool = False
    """Before shell_v2: exit codes are lost, lines end in carriage returns."""
    full: bool = False
    """Pushes fail."""
    damage: str = ""
    """Files of this name change on their way."""
    free_kb: int = 9_000_000
    cut_at: int = 0
    """The connection is lost at this command, counted from 1."""
    executed_by: str | None = "an emulator"
    """None: the runner is told that the kernel runs it itself, as on a phone."""
    cut_late: bool = False
    """What the command started there goes on."""
    emulator: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=lambda: dict(PROPERTIES))


class AndroidDevice:
    """A device.

    Args:
        home: A free folder.
        emulator: Words that run a program for Arm here.
    """

    def __init__(self, home: Path, emulator: list[str]) -> None:
        self.home = home
        self.settings = Settings(emulator=emulator)
        self.tmp = home / "root" / "data/local/tmp"
        self.tmp.mkdir(parents=True)
        (home / "bin").mkdir()
        self.play()

    def play(self, **changed: object) -> AndroidDevice:
        """Plays something else from now on."""
        for name, value in changed.items():
            setattr(self.settings, name, value)
        (self.home / "settings.json").write_text(json.dumps(asdict(self.settings)))
        (self.home / "log").unlink(missing_ok=True)
        (self.home / "cut").unlink(missing_ok=True)
        told = "".join(f"[{name}]: [{value}]\n" for name, value in self.settings.properties.items())
        self._program("getprop", told)
        self._program("df", DF.format(total=120_000_000, free=self.settings.free_kb))
        here = Path(adb_module.__file__).parents[2] / "tests" / "remote" / "adb_stand_in.py"
        words = (
            'case "$1" in battery) cat <<"END"\n' + BATTERY + 'END\n;; *) cat <<"END"\n' + THERMAL + "END\n;; esac\n"
        )
        self._program("dumpsys", None, words)
        self._program("adb", None, f'exec {sys.executable} {here} "$@"\n', folder=self.home / "path")
        return self

    def _program(self, name: str, text: str | None, script: str = "", folder: Path | None = None) -> None:
        place = folder or self.home / "bin"
        place.mkdir(exist_ok=True)
        body = script if text is None else f'cat <<"END"\n{text}END\n'
        (place / name).write_text(f"#!/bin/sh\n{body}")
        (place / name).chmod(0o755)

    def use(self, monkeypatch) -> None:
        """Puts the stand-in on PATH."""
        monkeypatch.setenv("ADB_STAND_IN", str(self.home))
        monkeypatch.setenv("PATH", f"{self.home / 'path'}{os.pathsep}{os.environ['PATH']}")

    @property
    def address(self) -> str:
        """For `--on`."""
        return f"adb://{self.settings.serial}"

    @property
    def commands(self) -> list[str]:
        """What adb was asked, without `devices`."""
        log = self.home / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def pushes(self) -> list[str]:
        """Pushes among them."""
        return [command for command in self.commands if command.startswith("push ")]

    def runs(self) -> list[str]:
        """Returns the folders of runs that are there; those of a lost connection get a moment to go."""
        for _ in range(200):
            found = [path.name for path in self.tmp.iterdir() if path.name.startswith("ghostdeploy-run-")]
            if not found:
                break
            time.sleep(0.05)
        return found

    def parts(self) -> list[str]:
        """Returns files that were not sent to their end."""
        return [path.name for path in self.tmp.rglob("*") if path.name in ("part", "inputs", "outputs")]

    def forget(self) -> None:
        """Removes what was sent."""
        shutil.rmtree(self.tmp / "ghostdeploy-objects", ignore_errors=True)

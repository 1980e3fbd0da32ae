"""Android devices by the SDK's or Debian's `adb` program: its states as sentences, commands, files by their content.

    devices -l    → the state of the serial number
    shell SCRIPT  → (SCRIPT) 2>&1; echo __rc=$?          adb before shell_v2 (Android 7) ends with 0 whatever happened
    push          → the run's folder, SHA-256, OBJECTS   what is there already is never sent

Objects stay in `OBJECTS`, under their SHA-256, for a month. A run has a folder of its own, which goes at its end. While
it works a guard on the device reads from the connection: when that ends, however it ends, the guard ends the runner and
removes the folder. What a reboot left there goes with a later run.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ghostdeploy.errors import ExportFailed, MissingDependency, UnsupportedHardware
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

VARIABLE = "GHOSTDEPLOY_ADB"
"""Environment variable: words that start adb, where it is not `adb` on PATH."""
BASE = "/data/local/tmp"
OBJECTS = f"{BASE}/ghostdeploy-objects"
RUNS = f"{BASE}/ghostdeploy-run-"
PID = "pid"
"""File of a run's folder with the number of the process that works in it."""
ANSWERS_S = 30.0
_MADE = "__made"
_GUARD = f"""(
trap '' HUP
find {BASE} -maxdepth 1 -name 'ghostdeploy-run-*' -mtime +1 -exec rm -rf {{}} + 2>/dev/null
find {OBJECTS} -type f -mtime +30 -exec rm -f {{}} + 2>/dev/null
mkdir -p {OBJECTS} && mkdir -m 700 FOLDER || exit 1
echo {_MADE}
cat >/dev/null
kill -9 $(cat FOLDER/{PID}) 2>/dev/null
rm -rf FOLDER
) 2>&1"""
"""Makes the folder of a run and removes it when its input ends."""
_AGAIN = "start it again; nothing was left there"
_RC = re.compile(r"__rc=(\d+)\s*\Z")
_STATES = {
    "unauthorized": ("does not trust this computer", "unlock it and allow USB debugging from this computer"),
    "authorizing": ("is asking whether it trusts this computer", "unlock it and allow USB debugging"),
    "offline": ("does not answer (offline)", "adb reconnect offline, or plug it in again"),
    "no permissions": (
        "may not be opened by this user (no permissions)",
        "apt-get install android-sdk-platform-tools-common, and plug it in again",
    ),
    "recovery": ("is in recovery", "start Android on it"),
    "sideload": ("is in sideload", "start Android on it"),
    "bootloader": ("is in its boot loader", "start Android on it"),
}
"""What `adb devices` says of one, the sentence and the hint."""


class Adb:
    """One device.

    Args:
        serial: Its serial number.

    Attributes:
        where: For messages.

    Raises:
        MissingDependency: There is no program `adb`.
        UnsupportedHardware: The device is not there, or cannot be used.
    """

    def __init__(self, serial: str) -> None:
        self.where = f"adb://{serial}"
        self._serial = serial
        self._program = shlex.split(os.environ.get(VARIABLE, "")) or ["adb"]
        if shutil.which(self._program[0]) is None:
            raise MissingDependency(
                f"no program {self._program[0]} is on PATH",
                hint=f"apt-get install adb, or set {VARIABLE} to that of the Android SDK",
            )
        self._require_ready()

    def shell(self, script: str, *, seconds: float = ANSWERS_S) -> tuple[int, str]:
        """Runs a script on the device.

        Args:
            script: For its `sh`.
            seconds: Time limit.

        Returns:
            Its exit code and what it printed.

        Raises:
            ExportFailed: The connection was lost, or the device took too long.
        """
        said = self._adb("shell", f"( {script}\n) 2>&1; echo __rc=$?", seconds=seconds).replace("\r\n", "\n")
        found = _RC.search(said)
        if found is None:
            raise self._lost(said)
        return int(found[1]), said[: found.start()]

    def ask(self, script: str) -> str:
        """Runs a script that cannot fail on a device in order; returns what it printed.

        Raises:
            ExportFailed: It failed, or the connection was lost.
        """
        code, said = self.shell(script)
        if code:
            raise ExportFailed(f"{self.where} failed in a command, with code {code}: {last_line(said)}", hint=_AGAIN)
        return said

    def send(self, objects: Sequence[tuple[str, Path]], folder: str, *, executable: str) -> int:
        """Sends files that the device does not have; returns the bytes sent.

        Args:
            objects: SHA-256 and file.
            folder: Of the run; files are there until they are whole.
            executable: Which of them is a program.

        Raises:
            UnsupportedHardware: There is no room.
            ExportFailed: The connection was lost, or something else arrived.
        """
        there = self._hashes([f"{OBJECTS}/{name}" for name, _ in objects])
        missing = [(name, path) for name, path in objects if there.get(f"{OBJECTS}/{name}") != name]
        size = sum(path.stat().st_size for _, path in missing)
        if missing:
            self._require_room(2 * size)
        for name, path in missing:
            self._send(name, path, folder)
        if missing:
            self.ask(f"chmod 755 {OBJECTS}/{executable}")
        return size

    def fetch(self, there: str, here: Path) -> bytes:
        """Returns a file of the device; `here` is a place for it.

        Raises:
            ExportFailed: The connection was lost.
        """
        said = self._adb("pull", there, str(here), seconds=600)
        if not here.is_file():
            raise ExportFailed(f"the outputs on {self.where} did not come back: {last_line(said)}", hint=_AGAIN)
        return here.read_bytes()

    @contextmanager
    def folder(self) -> Iterator[str]:
        """Gives an empty folder of the device, which goes at the end, and when the connection is lost.

        Raises:
            ExportFailed: The connection was lost.
            UnsupportedHardware: It cannot be made.
        """
        folder = RUNS + secrets.token_hex(6)
        guard = subprocess.Popen(
            self._words("shell", _GUARD.replace("FOLDER", folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert guard.stdin is not None
        try:
            self._await(guard)
            yield folder
        finally:
            guard.stdin.close()
            try:
                guard.wait(ANSWERS_S)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()
            assert guard.stdout is not None
            guard.stdout.close()

    def _await(self, guard: subprocess.Popen[bytes]) -> None:
        """Waits until the guard has made its folder."""
        assert guard.stdout is not None
        said, slow = [], threading.Timer(ANSWERS_S, guard.kill)
        slow.start()
        for line in iter(guard.stdout.readline, b""):
            said.append(line.decode("utf-8", "replace").strip())
            if said[-1] == _MADE:
                slow.cancel()
                return
        slow.cancel()
        if any(line.startswith("mkdir") for line in said):
            raise _no_room(self.where, "\n".join(said))
        raise self._lost("\n".join(said))

    def _lost(self, said: str) -> ExportFailed:
        return ExportFailed(f"the connection to {self.where} was lost: {last_line(said)}", hint=_AGAIN)

    def _send(self, name: str, path: Path, folder: str) -> None:
        part = f"{folder}/part"
        said = self._adb("push", str(path), part, seconds=600)
        if re.search(r"No space left|ENOSPC", said):
            raise _no_room(self.where, said)
        if self._hashes([part]).get(part) != name:
            raise ExportFailed(f"{self.where} did not get a file whole: {last_line(said)}", hint=_AGAIN)
        self.ask(f"mv -f {part} {OBJECTS}/{name}")

    def _hashes(self, paths: Sequence[str]) -> dict[str, str]:
        """Returns the SHA-256 of those files that are there."""
        _, said = self.shell(f"sha256sum {' '.join(paths)}", seconds=120)
        lines = (line.split() for line in said.splitlines())
        return {words[1].lstrip("*"): words[0] for words in lines if len(words) == 2 and len(words[0]) == 64}

    def _require_room(self, size: int) -> None:
        """Refuses a device whose `df` tells less room; one that tells it in another form fails while files are sent."""
        _, said = self.shell(f"df -k {BASE}")
        words = (said.strip().splitlines() or [""])[-1].split()
        free = words[-3] if len(words) >= 4 else ""
        if free.isdecimal() and int(free) * 1024 < size:
            raise UnsupportedHardware(
                f"{self.where} has {int(free) / 1e3:.0f} MB free in {BASE}, expected {size / 1e6:.0f} MB",
                hint="free some space there",
            )

    def _require_ready(self) -> None:
        said = self._adb("devices")
        found = dict(line.strip().split("\t", 1) for line in said.splitlines() if "\t" in line.strip())
        hidden = next((state for state in found.values() if state.startswith("no permissions")), None)
        state = found.get(self._serial, hidden)  # older ones print question marks for a serial they may not read
        if state == "device":
            return
        if state is None:
            others = ", ".join(f"adb://{serial}" for serial in found) or "none at all"
            raise UnsupportedHardware(
                f"no device {self._serial} is connected; adb sees {others}", hint="adb devices -l lists them"
            )
        sentence, hint = next(
            (two for key, two in _STATES.items() if state.startswith(key)), (f"is {state}", "adb devices -l")
        )
        raise UnsupportedHardware(f"{self.where} {sentence}", hint=hint)

    def _adb(self, *words: str, seconds: float = ANSWERS_S) -> str:
        """Runs adb; returns what it printed, on both streams: older ones print errors on either, and exit with 0."""
        try:
            done = subprocess.run(
                self._words(*words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                text=True,
                errors="replace",
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ExportFailed(f"{self.where} gave no answer in {seconds:g} s", hint="adb reconnect") from error
        return done.stdout

    def _words(self, *words: str) -> list[str]:
        return [*self._program, *([] if words[0] == "devices" else ["-s", self._serial]), *words]


def last_line(said: str) -> str:
    """Returns the last line of what a program printed."""
    return visible_line((said.strip().splitlines() or ["it said nothing"])[-1])


def _no_room(where: str, said: str) -> UnsupportedHardware:
    return UnsupportedHardware(f"{where} cannot take the files: {last_line(said)}", hint="free some space there")

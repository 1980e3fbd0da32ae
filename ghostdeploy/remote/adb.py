"""Android devices by the SDK's or Debian's `adb` program: commands, files by their content.

    devices       → the state of the serial number, see `adb_states`
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
from typing import TYPE_CHECKING, TypeVar

from ghostdeploy.errors import ExportFailed, MissingDependency, UnsupportedHardware
from ghostdeploy.remote.adb_states import require_ready
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ghostdeploy.errors import GhostDeployError

E = TypeVar("E", bound="GhostDeployError")
VARIABLE = "GHOSTDEPLOY_ADB"
"""Environment variable: words that start adb, where it is not `adb` on PATH."""
BASE = "/data/local/tmp"
OBJECTS = f"{BASE}/ghostdeploy-objects"
RUNS = f"{BASE}/ghostdeploy-run-"
PID = "pid"
"""File of a run's folder with the number of the process that works in it."""
ANSWERS_S = 30.0
_TRANSFER_S = 600.0
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
_running: set[Adb] = set()
_RC = re.compile(r"__rc=(\d+)\s*\Z")


class Adb:
    """One device.

    Args:
        serial: Its serial number.

    Attributes:
        where: For messages.
        failed: Why nothing more can be done there; None while all is well.

    Raises:
        MissingDependency: There is no program `adb`.
        UnsupportedHardware: The device is not there, or cannot be used.
    """

    def __init__(self, serial: str) -> None:
        self.where = f"adb://{serial}"
        self.failed: GhostDeployError | None = None
        self._process: subprocess.Popen[str] | None = None
        self._serial = serial
        self._program = shlex.split(os.environ.get(VARIABLE, "")) or ["adb"]
        if shutil.which(self._program[0]) is None:
            raise MissingDependency(
                f"no program {self._program[0]} is on PATH",
                hint=f"apt-get install adb, or set {VARIABLE} to that of the Android SDK",
            )
        require_ready(serial, self._adb("devices"))

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
            raise self._broken(
                ExportFailed(f"{self.where} failed in a command, with code {code}: {last_line(said)}", hint=_AGAIN)
            )
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
            self.require_room(2 * size)
        for name, path in missing:
            self._send(name, path, folder)
        if missing:
            self.ask(f"chmod 755 {OBJECTS}/{executable}")
        return size

    def fetch(self, there: str, here: Path) -> bytes:
        """Returns a file of the device; `here` is a place for it, and free again afterwards.

        Raises:
            ExportFailed: The connection was lost.
        """
        said = self._adb("pull", there, str(here), seconds=_TRANSFER_S)
        if not here.is_file():
            raise self._broken(
                ExportFailed(f"the outputs on {self.where} did not come back: {last_line(said)}", hint=_AGAIN)
            )
        data = here.read_bytes()
        here.unlink()
        return data

    def push(self, here: Path, there: str) -> str:
        """Sends a file; returns what adb said. Whether it arrived whole shows in its hash there.

        Raises:
            UnsupportedHardware: There is no room.
            ExportFailed: The device took too long.
        """
        said = self._adb("push", str(here), there, seconds=_TRANSFER_S)
        if re.search(r"No space left|ENOSPC", said):
            raise self._broken(_no_room(self.where, said))
        return said

    def not_whole(self, said: str) -> ExportFailed:
        """Returns the error for a file that arrived otherwise than it was sent.

        Args:
            said: What adb said about it.
        """
        return self._broken(ExportFailed(f"{self.where} did not get a file whole: {last_line(said)}", hint=_AGAIN))

    def end(self) -> None:
        """Ends what is under way and refuses everything else; the device removes the folder of the run."""
        self.failed = self.failed or ExportFailed(f"the work on {self.where} was interrupted", hint=_AGAIN)
        process = self._process
        if process is not None:
            process.kill()

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
            _running.add(self)
            yield folder
        finally:
            _running.discard(self)
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
            raise self._broken(_no_room(self.where, "\n".join(said)))
        raise self._lost("\n".join(said))

    def _lost(self, said: str) -> ExportFailed:
        return self._broken(ExportFailed(f"the connection to {self.where} was lost: {last_line(said)}", hint=_AGAIN))

    def _broken(self, error: E) -> E:
        """Keeps an error after which nothing can be done there."""
        self.failed = self.failed or error
        return error

    def _send(self, name: str, path: Path, folder: str) -> None:
        part = f"{folder}/part"
        said = self.push(path, part)
        if self._hashes([part]).get(part) != name:
            raise self.not_whole(said)
        self.ask(f"mv -f {part} {OBJECTS}/{name}")

    def _hashes(self, paths: Sequence[str]) -> dict[str, str]:
        """Returns the SHA-256 of those files that are there."""
        return hashes(self.shell(f"sha256sum {' '.join(paths)}", seconds=120)[1])

    def require_room(self, size: int) -> None:
        """Refuses a device whose `df` tells less room; one that tells it in another form fails while files are sent.

        Raises:
            UnsupportedHardware: There are fewer than `size` bytes.
        """
        _, said = self.shell(f"df -k {BASE}")
        words = (said.strip().splitlines() or [""])[-1].split()
        free = words[-3] if len(words) >= 4 else ""
        if free.isdecimal() and int(free) * 1024 < size:
            raise self._broken(
                UnsupportedHardware(
                    f"{self.where} has {int(free) / 1e3:.0f} MB free in {BASE}, expected {size / 1e6:.0f} MB",
                    hint="free some space there",
                )
            )

    def _adb(self, *words: str, seconds: float = ANSWERS_S) -> str:
        """Runs adb; returns what it printed, on both streams: older ones print errors on either, and exit with 0."""
        with subprocess.Popen(
            self._words(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            self._process = process
            if self.failed is not None:  # maybe since this process was started, and `end` did not see it
                process.kill()
            try:
                said, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                late = ExportFailed(f"{self.where} gave no answer in {seconds:g} s", hint="adb reconnect")
                raise self._broken(late) from error
            finally:
                process.kill()
                self._process = None
        if self.failed is not None:
            raise self.failed
        return said

    def _words(self, *words: str) -> list[str]:
        return [*self._program, *([] if words[0] == "devices" else ["-s", self._serial]), *words]


def end_all() -> None:
    """Ends every run; the devices stop and clean up."""
    for one in list(_running):
        one.end()


def hashes(said: str) -> dict[str, str]:
    """Returns the SHA-256 by path of what `sha256sum` printed, among other lines."""
    lines = (line.split() for line in said.splitlines())
    return {words[1].lstrip("*"): words[0] for words in lines if len(words) == 2 and len(words[0]) == 64}


def last_line(said: str) -> str:
    """Returns the last line of what a program printed."""
    return visible_line((said.strip().splitlines() or ["it said nothing"])[-1])


def _no_room(where: str, said: str) -> UnsupportedHardware:
    return UnsupportedHardware(f"{where} cannot take the files: {last_line(said)}", hint="free some space there")

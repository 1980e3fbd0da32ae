"""A device that is reached: a folder of its own on it, the runner, and what both have said so far.

The runner is one process per question. One that dies by a signal is an error of its bundle; a lost connection, or a
device without room, is one of the device, which `Adb.failed` keeps.

    objects   runner, graph, weights, golden inputs   by their SHA-256, kept on the device
    shard     inputs of some images, and outputs      in the folder of the run, gone before the next
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.device.deaths import explain, signal_of
from ghostdeploy.errors import ExportFailed, UnsupportedHardware
from ghostdeploy.remote import android
from ghostdeploy.remote.adb import OBJECTS, PID, Adb, hashes, last_line
from ghostdeploy.remote.runner import replay
from ghostdeploy.remote.runner.build import runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ghostdeploy.device.records import State
    from ghostdeploy.remote.android import Android
    from ghostdeploy.remote.runner.replay import Payload

_MOST_THREADS = 4
_DAMAGED, _UNWRITABLE = 3, 4
"""Exit codes of the runner."""


@contextmanager
def connected(serial: str, *, seconds: float) -> Iterator[Phone]:
    """Reaches a device; its folder there goes at the end, however that comes.

    Args:
        serial: As `adb devices` lists it.
        seconds: Time limit of one process there.

    Raises:
        MissingDependency: There is no adb, or nothing to build the runner with.
        UnsupportedHardware: The device is not there, not ready, full, or of another architecture.
        ExportFailed: The connection was lost, or the runner could not be built.
    """
    adb = Adb(serial)
    told = android.look(adb)
    program = runner(told.architecture)
    with tempfile.TemporaryDirectory() as here, adb.folder() as there:
        yield Phone(adb, told, Path(here), there, program=program, seconds=seconds)


class Phone:
    """A device that is reached, with a folder of its own and the runner.

    Args:
        adb: The way there.
        told: What Android tells.
        here: Folder on this machine.
        there: Folder on the device.
        program: The runner.
        seconds: Time limit of one process.

    Attributes:
        adb: The way there.
        android: What Android told.
        device: The same record as that of other devices.
        probed: What the runner read of the kernel.
        states: What was seen before, between and after.
        threads: Of ncnn where nobody says: one per large core, at most four.
    """

    def __init__(self, adb: Adb, told: Android, here: Path, there: str, *, program: bytes, seconds: float) -> None:
        self.adb, self.android = adb, told
        self._here, self._there, self._seconds = here, there, seconds
        self._runner, file = self._object(program)
        adb.send([(self._runner, file)], there, executable=self._runner)
        self._known = {self._runner}
        self._began = time.monotonic()
        code, text = adb.shell(f"{OBJECTS}/{self._runner} probe")
        said = replay.answer(text)
        if code or not said or "cores" not in said[-1]:
            ended = signal_of(code)
            how = f"by {ended.name}" if ended else f"with code {code}: {last_line(text)}"
            raise ExportFailed(
                f"the runner ended {how} on {adb.where}", hint="adb shell getenforce; adb shell uname -a"
            )
        self.probed = said[-1]
        self.device = android.device(told, self.probed)
        self.states: list[State] = [android.state(told, self.probed, 0.0)]
        self.threads = max(1, min(_MOST_THREADS, self.probed["big cpus"]))

    def observe(self) -> None:
        """Looks how the device is doing."""
        code, text = self.adb.shell(f"{OBJECTS}/{self._runner} probe")
        said = replay.answer(text)
        if not code and said:
            self.android = android.look(self.adb)
            self.saw(said[-1])

    def saw(self, said: dict[str, Any]) -> None:
        """Keeps the state in a line of the runner."""
        self.states.append(android.state(self.android, said, time.monotonic() - self._began))

    def ask(self, words: str) -> dict[str, Any]:
        """Returns what the runner says without a bundle.

        Args:
            words: Its command.

        Raises:
            GhostDeployError: The runner died, or the connection.
        """
        code, text = self.adb.shell(f"{OBJECTS}/{self._runner} {words}", seconds=self._seconds)
        said = replay.answer(text)
        if code or not said:
            raise explain(code, f"the runner's {words.split()[0]}", self.device, last_line(text))
        return said[-1]

    def compute(
        self, given: Payload, inputs: bytes, *, threads: int, keep: bool = False
    ) -> tuple[dict[str, Any], bytes]:
        """Returns what the runner says of a replay, and the container of the outputs.

        Args:
            given: The bundle.
            inputs: The container of its inputs.
            threads: Of ncnn.
            keep: Keep the inputs there for another run; otherwise nothing of them stays.

        Raises:
            GhostDeployError: The runner died, or the connection.
        """
        there, outputs = self._kept(inputs) if keep else self._shard(inputs), f"{self._there}/outputs"
        said, text = self._run(given, "replay", there, f"{outputs} --threads {threads}")
        data = self.adb.fetch(outputs, self._here / "outputs")
        if hashes(text).get(outputs) != hashlib.sha256(data).hexdigest():
            raise ExportFailed(f"the outputs of {given.path} came back damaged from {self.adb.where}")
        return said[-1], data

    def bench(self, given: replay.Replayable, words: str) -> list[dict[str, Any]]:
        """Returns what the runner says of a measurement on the golden inputs.

        Args:
            given: The bundle.
            words: Options of the runner.

        Raises:
            GhostDeployError: The runner died, or the connection.
        """
        said, _ = self._run(given, "bench", self._kept(given.inputs), words)
        self.saw(said[-1])
        return said

    def _kept(self, data: bytes) -> str:
        """Sends what the device does not have; returns its path there."""
        return f"{OBJECTS}/{self._sent([data])[0]}"

    def _sent(self, objects: Sequence[bytes]) -> list[str]:
        """Returns the names of objects, which are there; each is looked for once in a run."""
        found = [self._object(data) for data in objects]
        if new := [one for one in found if one[0] not in self._known]:
            self.adb.send(new, self._there, executable=self._runner)
            self._known |= {name for name, _ in new}
        return [name for name, _ in found]

    def _shard(self, inputs: bytes) -> str:
        """Sends inputs for one run; those of the one before, and its outputs, have gone by then."""
        here, there = self._here / "inputs", f"{self._there}/inputs"
        here.write_bytes(inputs)
        said = self.adb.push(here, there)
        here.unlink()
        _, text = self.adb.shell(f"rm -f {self._there}/outputs; sha256sum {there}", seconds=self._seconds)
        if hashes(text).get(there) != hashlib.sha256(inputs).hexdigest():
            raise self.adb.not_whole(said)
        return there

    def _run(self, given: Payload, what: str, inputs: str, words: str) -> tuple[list[dict[str, Any]], str]:
        """Runs the runner on a bundle; returns its lines, and everything that was said."""
        files = " ".join([*(f"{OBJECTS}/{name}" for name in self._sent([given.graph, given.weights])), inputs])
        script = f"cd {self._there} && echo $$ > {PID} && exec {OBJECTS}/{self._runner} {what} {files} {words}"
        after = f"code=$?; rm -f {self._there}/inputs; sha256sum {self._there}/outputs 2>/dev/null; exit $code"
        code, text = self.adb.shell(f"sh -c '{script}'\n{after}", seconds=self._seconds)
        said = replay.answer(text)
        if code == 0 and said:
            return said, text
        why = said[-1].get("error") if said else None
        if why is not None:
            kind = UnsupportedHardware if code == _UNWRITABLE else ExportFailed
            hint = "export the bundle again" if code == _DAMAGED else "free some memory and space there"
            raise kind(f"the runner on {self.adb.where} cannot run {given.path}: {why}", hint=hint)
        raise explain(code, f"ncnn {given.path}", self.device, last_line(text))

    def _object(self, data: bytes) -> tuple[str, Path]:
        """Returns the name of an object, and a file of it here."""
        name = hashlib.sha256(data).hexdigest()
        path = self._here / name
        if not path.exists():
            path.write_bytes(data)
        return name, path

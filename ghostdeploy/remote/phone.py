"""Proof and latency of ncnn bundles on Android devices, which have no Python: the static runner works there.

    bundle → hashes, preprocessing (here) → payload, golden inputs → runner (there) → outputs → the judge of `verify`

One process per bundle; one that dies by a signal is an error of its bundle. Latencies are raw, by the device's steady
clock, and bundles take turns: each block of calls of one is followed by one of the next.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.arguments import require_count, require_paths
from ghostdeploy.device.deaths import explain, signal_of
from ghostdeploy.device.jobs import SECONDS
from ghostdeploy.device.proof import Proof
from ghostdeploy.device.receipt import Latency, summed_up
from ghostdeploy.errors import BundleError, ExportFailed, GhostDeployError, UnsupportedHardware
from ghostdeploy.remote import android
from ghostdeploy.remote.adb import OBJECTS, PID, Adb, last_line
from ghostdeploy.remote.runner import replay
from ghostdeploy.remote.runner.build import runner
from ghostdeploy.runtimes.placement import RuntimePlacement

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from ghostdeploy.device.records import Device, State
    from ghostdeploy.remote.android import Android
    from ghostdeploy.remote.runner.replay import Replayable

_BLOCKS = 4
_MOST_THREADS = 4
_DAMAGED, _UNWRITABLE = 3, 4


@dataclass(kw_only=True)
class Found:
    """What one device gave.

    Attributes:
        android: What Android tells of it.
        device: The same record as that of other devices.
        states: What was seen before, between and after.
        proofs: By bundle.
        latencies: By bundle, where time was measured.
        errors: Of bundles that gave nothing.
        sent: Bytes that were sent.
    """

    android: Android
    device: Device
    states: list[State] = field(default_factory=list)
    proofs: dict[Path, Proof] = field(default_factory=dict)
    latencies: dict[Path, Latency] = field(default_factory=dict)
    errors: dict[Path, GhostDeployError] = field(default_factory=dict)
    sent: int = 0


def prove(
    serial: str,
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    threads: int | None = None,
    seconds: float = SECONDS,
) -> Found:
    """Checks bundles here and replays their golden vectors on an Android device.

    Args:
        serial: As `adb devices` lists it.
        paths: Bundles of target ncnn.
        threads: Of ncnn; None is one per large core, at most four.
        seconds: Time limit of one bundle.

    Returns:
        What was found; a bundle that gave nothing is among its errors.

    Raises:
        BundleError: Every bundle is damaged; likewise what else is wrong with all of them.
        MissingDependency: There is no adb, or nothing to build the runner with.
        UnsupportedHardware: The device is not there, not ready, full, or of another architecture.
        ExportFailed: The connection was lost, or the runner could not be built.
    """

    def each(phone: _Phone, path: Path, given: Replayable) -> None:
        phone.found.proofs[path] = phone.replayed(given)

    return _each(serial, paths, each, threads=threads, seconds=seconds)


def bench(
    serial: str,
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    threads: int = 1,
    calls: int = 100,
    seconds: float = SECONDS,
) -> Found:
    """Proves bundles on an Android device, then measures the latency of those that gave outputs, in turns.

    Args:
        serial: As `adb devices` lists it.
        paths: Bundles of target ncnn.
        threads: Of ncnn.
        calls: Of each bundle, in four blocks.
        seconds: Time limit of one block.

    Raises:
        GhostDeployError: See `prove`.
    """
    calls = require_count("calls", calls)
    blocks: dict[Path, list[tuple[float, ...]]] = {}

    def each(phone: _Phone, path: Path, given: Replayable) -> None:
        phone.found.proofs[path] = phone.replayed(given)

    def turns(phone: _Phone, good: dict[Path, Replayable]) -> None:
        for _ in range(_BLOCKS):
            for path in [one for one in good if one in phone.found.proofs and one not in phone.found.errors]:
                with phone.guarding(path):
                    blocks.setdefault(path, []).append(phone.timed(good[path], -(-calls // _BLOCKS)))

    found = _each(serial, paths, each, turns, threads=require_count("threads", threads), seconds=seconds)
    for path in [one for one in blocks if one not in found.errors]:
        found.latencies[path] = summed_up(tuple(blocks[path]), threads=threads, batch=1)
    return found


def _each(
    serial: str,
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    work: Callable[[_Phone, Path, Replayable], None],
    after: Callable[[_Phone, dict[Path, Replayable]], None] | None = None,
    *,
    threads: int | None,
    seconds: float,
) -> Found:
    good, bad = dict[Path, "Replayable"](), dict[Path, GhostDeployError]()
    for path in require_paths("bundle", paths):
        try:
            good[path] = replay.prepare(path)
        except GhostDeployError as error:
            bad[path] = error
    if not good:
        raise next(iter(bad.values()))
    adb = Adb(serial)
    told = android.look(adb)
    program = runner(told.architecture)
    with tempfile.TemporaryDirectory() as here, adb.folder() as there:
        phone = _Phone(adb, told, Path(here), there, program=program, threads=threads, seconds=seconds)
        phone.found.errors |= bad
        for path, given in good.items():
            with phone.guarding(path):
                work(phone, path, given)
        if after is not None:
            after(phone, good)
        phone.observe()
    return phone.found


class _Phone:
    """A device that is reached, with a folder of its own and the runner.

    Args:
        adb: The way there.
        told: What Android tells.
        here: Folder on this machine.
        there: Folder on the device.
        program: The runner.
        threads: Of ncnn; None chooses.
        seconds: Time limit of one process.
    """

    def __init__(
        self, adb: Adb, told: Android, here: Path, there: str, *, program: bytes, threads: int | None, seconds: float
    ) -> None:
        self._adb, self._here, self._there, self._seconds = adb, here, there, seconds
        self._name, file = self._object(program)
        self._sent = adb.send([(self._name, file)], there, executable=self._name)
        self._began = time.monotonic()
        code, said = adb.shell(f"{OBJECTS}/{self._name} probe")
        probed = replay.answer(said)
        if code or not probed or "cores" not in probed[-1]:
            ended = signal_of(code)
            how = f"by {ended.name}" if ended else f"with code {code}: {last_line(said)}"
            raise ExportFailed(
                f"the runner ended {how} on {adb.where}", hint="adb shell getenforce; adb shell uname -a"
            )
        self.found = Found(android=told, device=android.device(told, probed[-1]), sent=self._sent)
        self.found.states.append(android.state(told, probed[-1], 0.0))
        self._threads = threads or max(1, min(_MOST_THREADS, probed[-1]["big cpus"]))

    @contextmanager
    def guarding(self, path: Path) -> Iterator[None]:
        """Keeps the error of a bundle; that of a lost connection ends the run."""
        try:
            yield
        except (BundleError, _Died) as error:
            self.found.errors[path] = error.of if isinstance(error, _Died) else error

    def observe(self) -> None:
        """Looks how the device is doing."""
        code, said = self._adb.shell(f"{OBJECTS}/{self._name} probe")
        probed = replay.answer(said)
        if not code and probed:
            told = android.look(self._adb)
            self.found.states.append(android.state(told, probed[-1], time.monotonic() - self._began))

    def replayed(self, given: Replayable) -> Proof:
        """Returns the proof of a bundle."""
        outputs = f"{self._there}/outputs"
        said = self._run(given, "replay", f"{outputs} --threads {self._threads}")[-1]
        data = self._adb.fetch(outputs, self._here / "outputs")
        (self._here / "outputs").unlink()
        return Proof(
            verification=replay.judge(given, said, data, self.found.android.architecture),
            placement=RuntimePlacement(
                device="CPU",
                arithmetic="float32",
                int8_layers="integer" if given.bundle.manifest.precision == "int8" else "none",
                threads=self._threads,
                kernels=None,
                because="ncnn does not name its kernels",
            ),
            ghostdeploy=version("ghostdeploy"),
            engine_record=None,
        )

    def timed(self, given: Replayable, calls: int) -> tuple[float, ...]:
        """Returns the milliseconds of calls in one process."""
        said = self._run(given, "bench", f"--threads {self._threads} --rounds {calls}")
        self.found.states.append(android.state(self.found.android, said[-1], time.monotonic() - self._began))
        return tuple(round(one["ns"] / 1e6, 4) for one in said if "ns" in one)

    def _run(self, given: Replayable, what: str, words: str) -> list[dict[str, Any]]:
        objects = [self._object(one) for one in (given.graph, given.weights, given.inputs)]
        self.found.sent += self._adb.send(objects, self._there, executable=self._name)
        files = " ".join(f"{OBJECTS}/{name}" for name, _ in objects)
        script = f"cd {self._there} && echo $$ > {PID} && exec {OBJECTS}/{self._name} {what} {files} {words}"
        code, text = self._adb.shell(f"sh -c '{script}'", seconds=self._seconds)
        said = replay.answer(text)
        if code == 0 and said:
            return said
        why = said[-1].get("error") if said else None
        if why is not None:
            kind = UnsupportedHardware if code == _UNWRITABLE else ExportFailed
            hint = "export the bundle again" if code == _DAMAGED else "free some memory and space there"
            raise _Died(kind(f"the runner on {self._adb.where} cannot run {given.path}: {why}", hint=hint))
        raise _Died(explain(code, f"ncnn {given.path}", self.found.device, last_line(text)))

    def _object(self, data: bytes) -> tuple[str, Path]:
        name = hashlib.sha256(data).hexdigest()
        path = self._here / name
        if not path.exists():
            path.write_bytes(data)
        return name, path


class _Died(Exception):
    """The process of one bundle gave nothing.

    Args:
        of: Its error.
    """

    def __init__(self, of: GhostDeployError) -> None:
        super().__init__(of.message)
        self.of = of

"""Latency on a phone: the runner is the process that `bench` measures, block by block.

A block of calls is a run of the runner of its own, which loads the network, warms up as long as a process at home, and
tells every call's time by the phone's steady clock. Which bundle is next, how many calls a block has and what follows
from them is decided by `deploy.measure`.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from ghostdeploy.deploy.measure.bench_worker import Answer, Loaded
from ghostdeploy.deploy.measure.machine_rates import Bandwidth, Rates
from ghostdeploy.errors import ExportFailed, UsageError
from ghostdeploy.remote.runner import replay

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ghostdeploy.device.records import Device
    from ghostdeploy.remote.phone.connected import Phone


def require_real(device: Device) -> None:
    """Refuses a device whose times mean nothing.

    Raises:
        UsageError: Its processor is computed by another one.
    """
    if device.emulated:
        raise UsageError(
            f"bench measures time, and the processor of {device.where} is computed by {device.emulator}",
            hint="ghostdeploy verify --on proves a bundle there; measure on a real device",
        )


class PhoneTestbed:
    """A phone; see `deploy.measure.testbed.Testbed`.

    Args:
        phone: Reached.

    Raises:
        UsageError: It is emulated.
    """

    def __init__(self, phone: Phone) -> None:
        require_real(phone.device)
        self._phone = phone

    @property
    def machine(self) -> str:
        """See `Testbed`."""
        device = self._phone.device
        kernels = replay.kernels_of(self._phone.probed, self._phone.android.architecture)
        return f"{device.processor or device.where}, {kernels}"

    @property
    def threads(self) -> int:
        """See `Testbed`."""
        return self._phone.device.usable_cores

    def start(self, path: str, *, threads: int, batch: int) -> Blocks:
        """Checks a bundle and lets it answer once."""
        return Blocks(self._phone, path, threads=threads, batch=batch)

    def rates(self, threads: int) -> Rates:
        """See `rates.hpp`."""
        said = self._phone.ask(f"rates --threads {threads}")
        return Rates(
            threads=threads,
            macs_per_second=float(said["macs per second"]),
            bandwidths=tuple(Bandwidth(set_bytes=size, bytes_per_second=rate) for size, rate in said["bandwidths"]),
        )


class Blocks:
    """The blocks of one bundle; see `deploy.measure.testbed.Measuring`.

    Args:
        phone: Where.
        path: The bundle.
        threads: Of ncnn.
        batch: Images per call, computed one after the other.

    Raises:
        GhostDeployError: It is damaged, or cannot run there.
    """

    def __init__(self, phone: Phone, path: str, *, threads: int, batch: int) -> None:
        self.name = path
        self._phone, self._given = phone, replay.prepare(path)
        own = self._given.bundle.manifest.inputs[0].shape[0] or 1  # a smaller batch is filled up, as at home
        self._words = f"--threads {threads} --batch {ceil(batch / own) * own}"
        first = self._lines(1)[0]
        info = {"engine": first["engine"], "engine_version": f"{first['version']} (static runner)"}
        self.loaded = Loaded(seconds=first["first ns"] / 1e9, info=info)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Nothing is open between two blocks."""

    def ask(self, kind: str, count: int) -> Answer:
        """Returns the times of a block; a queue is one call after the other there."""
        said = self._lines(count)
        seconds = [one["ns"] / 1e9 for one in said if "ns" in one]
        if len(seconds) != count:
            raise ExportFailed(f"the runner on {self._phone.adb.where} told {len(seconds)} of {count} calls")
        return Answer(seconds=seconds if kind == "calls" else [sum(seconds)], peak_bytes=said[-1]["peak bytes"])

    def _lines(self, calls: int) -> list[dict[str, Any]]:
        return self._phone.bench(self._given, f"{self._words} --calls {calls}")

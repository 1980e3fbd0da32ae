"""A device as the place where `tune` measures: bundles are exported here, and take turns there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.device.jobs import Entry, Job, Order
from ghostdeploy.errors import ExportFailed, UnsupportedHardware, UsageError
from ghostdeploy.progress import Silent
from ghostdeploy.remote import session
from ghostdeploy.remote.address import parse
from ghostdeploy.remote.cargo import Cargo
from ghostdeploy.remote.commands import doctor
from ghostdeploy.remote.fleet import MODULES, Ways, located
from ghostdeploy.remote.reach import reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy import targets
    from ghostdeploy.deploy.measure.bench_worker import Job as Load
    from ghostdeploy.device.jobs import Event


class DevicePlace:
    """A device; see `deploy.tune.place.Place`.

    Args:
        where: Its address.
        ways: How it is reached.

    Raises:
        UsageError: It is emulated.
        UnsupportedHardware: It has no Python.
        GhostDeployError: It cannot be reached.
    """

    def __init__(self, where: str, ways: Ways) -> None:
        if parse(where).kind == "qemu":
            raise UsageError(
                f"tune measures time, and the processor of {where} is computed by another one",
                hint="name a real device",
            )
        if parse(where).kind == "adb":
            raise UnsupportedHardware(
                f"{where} has no Python, which tune needs there",
                hint="export the candidates, and compare them there: ghostdeploy bench BUNDLE... --on",
            )
        self._where, self._ways = where, ways
        (found,) = doctor([where], ways=ways)
        if found.error is not None:
            raise found.error
        if found.device is None or not found.results:
            raise ExportFailed(f"{where} did not say what it is")
        self._device, (_, examined) = found.device, found.results[0]
        self._states = {one.target: one for one in examined.targets}

    @property
    def name(self) -> str:
        """See `Place`."""
        one = self._device
        words = (one.model, one.processor or one.architecture, " ".join(one.features), f"{one.usable_cores} cores")
        return f"{self._where}: {', '.join(word for word in words if word)}"

    @property
    def flags(self) -> frozenset[str]:
        """See `Place`."""
        return frozenset(self._device.features)

    @property
    def cores(self) -> int:
        """See `Place`."""
        return self._device.usable_cores

    def why_not(self, row: targets.Target) -> str | None:
        """See `Place`."""
        state = self._states.get(row.name)
        if row.device is not None:
            return f"runs on a {row.device}, which is not measured on devices"
        if state is not None and state.can_run:
            return None
        return f"cannot run on {self._where}: " + ((state and state.reason) or "its engine is not there")

    def take_turns(
        self,
        jobs: dict[str, Load],
        *,
        rounds: int,
        queue: bool,
        on_round: Callable[[dict[str, float], dict[str, float]], bool],
        on_failure: Callable[[str, str], None],
        on_start: Callable[[str], None],
    ) -> None:
        """See `Place`."""
        cargo, entries = Cargo(), []
        for key, job in jobs.items():
            path = cargo.bundle(open_bundle(Path(job.path)), job.path)
            entries.append(Entry(key=key, path=path, threads=job.threads, batch=job.batch, profile=job.profile))

        def took(event: Event) -> bool:
            if event.failed is not None:
                raise located(event.failed.error(), self._where)
            if event.started is not None:
                on_start(event.started)
            if event.dropped is not None:
                on_failure(*event.dropped)
            return event.round is not None and on_round(*event.round)

        address = parse(self._where)
        way = reach(address, python=self._ways.python, listener=Silent())
        job_of_all = Job(command="turns", entries=tuple(entries), rounds=rounds, queue=queue)
        order = Order(
            where=self._where, reached=address.kind, emulator=None, jobs=(job_of_all,), seconds=self._ways.seconds
        )
        session.run(way, cargo, order, MODULES, took)

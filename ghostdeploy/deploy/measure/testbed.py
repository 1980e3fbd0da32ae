"""Where bundles are measured: this machine, or a device that has a program of its own for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ghostdeploy.deploy.measure.bench_process import bundle_process
from ghostdeploy.deploy.measure.machine_rates import measure_rates
from ghostdeploy.machine import cpu_name, instruction_set, usable_threads

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ghostdeploy.deploy.measure.bench_process import Process
    from ghostdeploy.deploy.measure.bench_worker import Answer, Loaded
    from ghostdeploy.deploy.measure.machine_rates import Rates


class Measuring(Protocol):
    """One bundle that is ready to be measured; `bench_process.Process` is one."""

    name: str
    """Of the bundle, for messages."""
    loaded: Loaded
    """What its engine is, and how long its first result took."""

    def ask(self, kind: str, count: int) -> Answer:
        """Returns the times of `count` calls, see `bench_worker.Order`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Testbed(Protocol):
    """A place to measure at."""

    @property
    def machine(self) -> str:
        """What it is, in words."""
        ...

    @property
    def threads(self) -> int:
        """Most that a bundle may have."""
        ...

    def start(self, path: str, *, threads: int, batch: int) -> Measuring:
        """Makes a bundle ready.

        Raises:
            GhostDeployError: It cannot be loaded there.
        """
        ...

    def rates(self, threads: int) -> Rates:
        """Returns what the machine can do at best."""
        ...


class Here:
    """This machine; see `Testbed`."""

    @property
    def machine(self) -> str:
        """See `Testbed`."""
        return f"{cpu_name()}, {instruction_set()}"

    @property
    def threads(self) -> int:
        """See `Testbed`."""
        return usable_threads()

    def start(self, path: str, *, threads: int, batch: int) -> Process:
        """Starts its process."""
        return bundle_process(path, threads=threads, batch=batch)

    def rates(self, threads: int) -> Rates:
        """See `machine_rates`."""
        return measure_rates(threads)

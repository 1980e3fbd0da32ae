"""Where the candidates of a search are measured: on this machine, or on a device that somebody reaches for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ghostdeploy import targets
from ghostdeploy.deploy.measure import turns
from ghostdeploy.machine import cpu_flags, cpu_name, instruction_set, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.deploy.measure.bench_worker import Job

Seconds = dict[str, float]
"""By entry."""


class Place(Protocol):
    """A machine that runs bundles."""

    @property
    def name(self) -> str:
        """The machine, for the journal and the tables."""
        ...

    @property
    def flags(self) -> frozenset[str]:
        """Processor flags, see `machine.cpu_flags`."""
        ...

    @property
    def cores(self) -> int:
        """Cores that an engine may keep busy."""
        ...

    def why_not(self, row: targets.Target) -> str | None:
        """Returns why the engine of a row cannot run there; None where it can."""
        ...

    def take_turns(
        self,
        jobs: dict[str, Job],
        *,
        rounds: int,
        queue: bool,
        on_round: Callable[[Seconds, Seconds], bool],
        on_failure: Callable[[str, str], None],
        on_start: Callable[[str], None],
    ) -> None:
        """Measures entries in turn; see `deploy.measure.turns.take_turns`."""
        ...


class Here:
    """This machine."""

    @property
    def name(self) -> str:
        """See `Place`."""
        return f"{cpu_name()}, {instruction_set()}, {usable_cores()} usable cores"

    @property
    def flags(self) -> frozenset[str]:
        """See `Place`."""
        return cpu_flags()

    @property
    def cores(self) -> int:
        """See `Place`."""
        return usable_cores()

    def why_not(self, row: targets.Target) -> str | None:
        """See `Place`."""
        if lacking := targets.missing_for_run(row):
            return f"needs {', '.join(lacking)}, not installed here"
        return None if targets.has_device(row) else f"runs on a {row.device}, and there is none here"

    take_turns = staticmethod(turns.take_turns)

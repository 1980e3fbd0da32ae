"""`--on adb://SERIAL`: the jobs of a command, done by the static runner, as events like those of other devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.device.jobs import Event, failure
from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.remote import phone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ghostdeploy.device.jobs import Job
    from ghostdeploy.remote.address import Address
    from ghostdeploy.remote.cargo import Cargo

_PROVEN = ("prove", "verify")


def run(address: Address, cargo: Cargo, asked: Sequence[Job], took: Callable[[Event], None], seconds: float) -> None:
    """Does jobs on an Android device.

    Args:
        address: Of the device.
        cargo: Knows the bundles that the jobs name.
        asked: What is to be done.
        took: Receives every event.
        seconds: Time limit of each bundle.

    Raises:
        GhostDeployError: See `phone.prove`; also where nothing of it can be done without Python.
    """
    jobs = {number: job for number, job in enumerate(asked) if job.command in _PROVEN}
    other = next((job for job in asked if job.command not in _PROVEN), None)
    if other is not None:
        raise UnsupportedHardware(
            f"{address.text} has no Python, which {_NAMES.get(other.command, other.command)} needs there",
            hint="verify --on works there, and ghostdeploy.remote.phone.bench from Python",
        )
    paths = {number: Path(cargo.as_given(job.bundles[0])) for number, job in jobs.items()}
    found = phone.prove(address.host, list(paths.values()), seconds=seconds)
    took(Event(device=found.device))
    for number, path in paths.items():
        if path in found.proofs:
            took(Event(job=number, result=msgspec.to_builtins(found.proofs[path])))
        else:
            took(Event(job=number, failed=failure(found.errors[path])))
    took(Event(states=tuple(found.states)))


_NAMES = {"time": "bench"}

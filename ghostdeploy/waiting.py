"""How the threads of OpenMP, PyTorch's among them, wait for each other: asleep, but not where speed is measured.

By default they spin. Where other programs want the cores as well, a thread that still computes is kept from its core by
those that wait for it: beside two busy processes on two cores, the export of a 320 px detector takes 85 s spinning.
Asleep at once it takes 48 s, and 25 s in place of 20 s on idle cores, as every operation has to wake them. After some
microseconds of spinning they sleep here: 42 s and 21 s. OpenMP reads the variables when it is loaded, so they are set
before anything imports it; the second is GNU's, the others' threads sleep at once.
"""

from __future__ import annotations

import os

from ghostdeploy.isolation import child_environment

VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
_ours: list[str] = []


def wait_asleep() -> None:
    """Lets threads sleep while they wait, in this process and its children, unless the user chose how they wait."""
    if not VARIABLES.keys() & os.environ.keys():
        os.environ.update(VARIABLES)
        _ours.extend(VARIABLES)


def measured_environment(**variables: str) -> dict[str, str]:
    """Returns what `isolation.child_environment` does, for a process whose speed is measured: as in an app."""
    found = child_environment(**variables)
    for name in _ours:
        found.pop(name, None)
    return found
